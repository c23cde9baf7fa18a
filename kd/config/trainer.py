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
        _require_names(config[group], run, group)
    places = [{"dirpath": str(run / node.dirpath)} if "dirpath" in node else {} for node in config.callbacks.values()]
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


OF_FILES = frozenset({"dirpath", "filename", "name", "version", "prefix", "sub_dir"})
"""Keys of callbacks, loggers and profilers whose values become parts of paths in the run directory."""


def _require_names(node: Any, run: Path, place: str) -> None:
    """Refuse a value of `OF_FILES` that leads out of the run directory."""
    if OmegaConf.is_dict(node):
        for key, value in node.items():
            if key in OF_FILES and isinstance(value, str):
                inside(run, value, f"{place}.{key}")
            _require_names(value, run, f"{place}.{key}")
