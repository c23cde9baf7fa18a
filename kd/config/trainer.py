"""Make the Lightning Trainer of a run, with loggers and callbacks that write into its directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from omegaconf import DictConfig, OmegaConf

from kd.config.make import make
from kd.errors import KDError
from kd.storage.paths import inside


def make_trainer(config: DictConfig, run: Path) -> lightning.Trainer:
    """Make the Trainer of a run.

    Raises:
        KDError: the accelerator is a GPU and there is none; an option is wrong; or a path leads out of the directory.
    """
    for group in ("callbacks", "logger", "trainer"):
        _require_inside(config[group], run, group)
    nodes = config.callbacks.values()
    places = [{"dirpath": str(run / (node.dirpath or "checkpoints"))} if "dirpath" in node else {} for node in nodes]
    callbacks = [make(node, **place) for node, place in zip(config.callbacks.values(), places, strict=True)]
    node, wanted = config.trainer, str(config.trainer.get("accelerator"))
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
        logger=[make(node, save_dir=str(run)) for node in config.logger.values()] or False,
        callbacks=[*callbacks, Timer()],
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        default_root_dir=str(run),
    )


def _require_inside(node: Any, run: Path, place: str) -> None:
    """Refuse a text that, taken as a path, leads out of the run directory.

    Any text may be a path for one of Lightning's many callbacks, loggers, profilers and plugins. Other texts, such as
    ``val/loss``, stay inside and are let through.

    Raises:
        KDError: naming the option.
    """
    if OmegaConf.is_dict(node) or OmegaConf.is_list(node):
        for key in node if OmegaConf.is_dict(node) else range(len(node)):
            _require_inside(node[key], run, f"{place}.{key}")
    elif isinstance(node, str):
        inside(run, node.removeprefix("file:"), place)
        if node.startswith("~"):
            raise KDError(f"{place}: expected a place in the run directory, got '{node}'; give a name alone")
