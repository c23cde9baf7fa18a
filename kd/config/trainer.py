"""Make the Lightning Trainer of a run, with loggers and callbacks that write into its directory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from kd.config import targets
from kd.config.loggers import make_loggers
from kd.config.make import make
from kd.errors import KDError


def make_trainer(config: DictConfig, run: Path) -> lightning.Trainer:
    """Make the Trainer of a run.

    Raises:
        KDError: the accelerator is a GPU and there is none; an option is wrong; or a path leads out of the directory.
    """
    groups = {group: section(config, run, group) for group in ("callbacks", "trainer")}
    for node in groups["callbacks"].values():
        if "dirpath" in node and not node.dirpath:
            node.dirpath = str(run / "checkpoints")
    callbacks = [make(node) for node in groups["callbacks"].values()]
    node, wanted = groups["trainer"], str(groups["trainer"].get("accelerator"))
    if wanted in ("gpu", "cuda") and not (torch.cuda.is_available() or (wanted == "gpu" and torch.mps.is_available())):
        raise KDError(
            f"trainer.accelerator={wanted}: expected a GPU that torch {torch.__version__} can use, found none; "
            "take trainer=cpu or trainer.accelerator=auto"
        )
    known = {}
    if node.strategy in ("auto", "ddp") and node.devices * node.num_nodes > 1:
        # A part that is not used at a step, such as the head in the feature stage, gets no gradient there.
        known["strategy"] = "ddp_find_unused_parameters_true"
    return make(
        node,
        **known,
        logger=loggers(config, run) or False,
        callbacks=[*callbacks, Timer()],
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        default_root_dir=str(run),
    )


def loggers(config: DictConfig, run: Path) -> list[Logger]:
    """Make the loggers of a run, which write into its directory."""
    return make_loggers(section(config, run, "logger"), run, Path(config.outputs))


def section(config: DictConfig, run: Path, group: str) -> DictConfig:
    """Return a section without interpolations, in which every path lies in the run directory; see `placed`."""
    return OmegaConf.create({group: placed(OmegaConf.to_container(config[group], resolve=True), run, group)})[group]


LEADS_OUT = re.compile(r"(^|[/\\\\])\.\.([/\\\\]|$)|^[/\\\\~]|^file:|::|(?<!^http)(?<!^https)://")
"""A text that leads out of a folder if it is taken as a path: a way up, a place from the root, or another file system.
The address of a tracking server is none."""

PLACES = re.compile(r"(^|_)(path|dir)$|dirpath$")
"""Keys whose values are paths."""


def placed(node: Any, run: Path, place: str) -> Any:
    """Return a node in which every path lies in the run directory.

    Any text may be a path for one of Lightning's many callbacks, loggers, profilers and plugins, so a text that would
    lead out is refused whatever its key is. Other texts, such as ``val/loss``, are let through.

    Raises:
        KDError: naming the option.
    """
    if isinstance(node, dict) and targets.fits(str(node.get("_target_")), targets.trusted()):
        return node  # the user's own code, which may have files anywhere
    if isinstance(node, dict):
        return {
            key: str(run / value) if PLACES.search(str(key)) and isinstance(value, str) and value else value
            for key, value in ((key, placed(value, run, f"{place}.{key}")) for key, value in node.items())
        }
    if isinstance(node, list):
        return [placed(value, run, f"{place}.{number}") for number, value in enumerate(node)]
    if isinstance(node, str) and LEADS_OUT.search(node):
        raise KDError(f"{place}: expected a place in the run directory, got '{node}', which leads out of it")
    return node
