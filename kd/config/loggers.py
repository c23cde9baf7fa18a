"""Make the loggers of a run: files in its directory, and trackers such as TensorBoard, MLflow and Weights & Biases."""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from kd.config.make import make
from kd.errors import KDError
from kd.storage.locks import lock

PACKAGES = {"TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow", "WandbLogger": "wandb"}
"""The package that each tracker needs, which is also the name of the extra."""


def make_loggers(nodes: DictConfig, run: Path, outputs: Path) -> list[Logger]:
    """Make the loggers of a run.

    Args:
        nodes: the section ``logger``.
        run: the run's directory.
        outputs: the folder whose runs share a store of MLflow.

    Raises:
        KDError: the package of a tracker is missing.
    """
    found = []
    for name, node in nodes.items():
        kind = node._target_.rpartition(".")[2]
        package = PACKAGES.get(kind)
        if package and not find_spec(package):
            raise KDError(f"logger={name!s}: expected the package {package}, found none; pip install 'kd[{package}]'")
        found.append(MAKERS.get(kind, _of_files)(node, run, outputs))
    return found


def _of_files(node: DictConfig, run: Path, outputs: Path) -> Logger:
    return make(node, save_dir=str(run))


def _mlflow(node: DictConfig, run: Path, outputs: Path) -> Logger:
    """Make MLflow's logger. Its store is made under a lock, because the jobs of a sweep start at the same time."""
    known = {"save_dir": str(run), "run_name": node.get("run_name") or run.name}
    if server := node.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI"):
        return make(node, **known, tracking_uri=server)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # otherwise it prints how its tables are made
    store = outputs.absolute() / "mlflow.db"
    store.parent.mkdir(parents=True, exist_ok=True)
    known |= {"tracking_uri": f"sqlite:///{store}", "artifact_location": str(store.with_name("mlflow_artifacts"))}
    with lock(store):
        return make(node, **known)


def _wandb(node: DictConfig, run: Path, outputs: Path) -> Logger:
    known: dict[str, Any] = {"save_dir": str(run), "name": node.get("name") or run.name}
    if node.get("offline") is None:
        known["offline"] = not _has_account()
    if known.get("offline", node.get("offline")):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
    run.mkdir(parents=True, exist_ok=True)
    return make(node, **known)


def _has_account() -> bool:
    """Return whether this user has given Weights & Biases a key, or has chosen a mode."""
    if {"WANDB_API_KEY", "WANDB_MODE"} & set(os.environ):
        return os.environ.get("WANDB_MODE", "online") == "online"
    try:
        return "api.wandb.ai" in netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False


MAKERS: dict[str, Callable[[DictConfig, Path, Path], Logger]] = {"MLFlowLogger": _mlflow, "WandbLogger": _wandb}
