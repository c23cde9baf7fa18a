"""Decide where a run starts in its directory: it is done, it resumes, or it starts from scratch."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

import kd.models  # noqa: F401  registers the students
from kd.data.sources import Splits
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.run.identity import identity
from kd.training.train import row_checksums

log = logging.getLogger(__name__)


def starting_point(
    run: RunDirectory, resolved: dict[str, Any], splits: Splits, config: DictConfig
) -> Path | str | None:
    """Where to start in this directory: "done", the checkpoint of an interrupted run, or None for anew."""
    last = run.checkpoints / "last.ckpt"
    if not config.rerun and same_run(run, resolved, splits):
        if run.is_done:
            return "done"
        if config.resume and last.is_file():
            if all(map(loads, run.checkpoints.glob("*.ckpt"))):
                log.info("resuming the interrupted run from %s", last)
                return last
            log.warning("a checkpoint in %s is damaged: training starts anew", run.checkpoints)
    place = run.set_aside_products()
    if place:
        log.info("an earlier run in this directory was moved to %s", place)
    return None


def same_run(run: RunDirectory, resolved: dict[str, Any], splits: Splits) -> bool:
    """Whether the directory holds a run, finished or not, of this configuration on these rows."""
    try:
        before, rows = run.config(), run.environment()["data"]
        known = run.status().get("identity") or identity(before)
    except (KDError, KeyError):
        return False
    same_rows = all(rows.get(name) == checksum for name, checksum in row_checksums(splits).items())
    return same_rows and known == identity(resolved)


def loads(checkpoint: Path) -> bool:
    """Whether a checkpoint is whole: its records have the checksums that torch wrote beside them, and can be read."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            if archive.testzip() is not None:  # torch itself reads what is damaged without a word
                return False
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # a cut or overwritten archive shows as any of several kinds
        return False
    return True
