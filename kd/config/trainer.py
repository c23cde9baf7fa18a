"""The Lightning Trainer of a run, with loggers and callbacks that write into its directory."""

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
    """The Trainer, with loggers and callbacks that write into the run directory.

    Raises:
        KDError: a GPU is wanted where there is none; or an option is wrong.
    """
    for group in ("callbacks", "logger", "trainer"):
        _require_names(config[group], run, group)
    callbacks = [make(node, **_place(node, run)) for node in config.callbacks.values()]
    node, known = config.trainer, {}
    wanted = str(node.get("accelerator"))
    if wanted in ("gpu", "cuda") and not (torch.cuda.is_available() or (wanted == "gpu" and torch.mps.is_available())):
        raise KDError(
            f"trainer.accelerator={wanted}: expected a GPU that torch {torch.__version__} can use, found none; "
            "take trainer=cpu or trainer.accelerator=auto"
        )
    if node.strategy in ("auto", "ddp") and node.devices * node.num_nodes > 1:
        # A part that rests at a step, such as a head in the feature stage, has no gradient for DDP to wait for.
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
"""Keys of callbacks, loggers and profilers that become parts of paths in the run directory."""


def _require_names(node: Any, run: Path, place: str) -> None:
    """Refuse such a key whose value leads out of the run directory."""
    if OmegaConf.is_dict(node):
        for key, value in node.items():
            if key in OF_FILES and isinstance(value, str):
                inside(run, value, f"{place}.{key}")
            _require_names(value, run, f"{place}.{key}")


def _place(node: DictConfig, run: Path) -> dict[str, str]:
    return {"dirpath": str(run / node.dirpath)} if "dirpath" in node else {}
