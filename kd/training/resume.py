"""Decide whether a run is done, resumes from a checkpoint, or starts from scratch."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import torch

import kd.models  # noqa: F401  registers the students
from kd.data.sources import Splits
from kd.errors import KDError, NewerError
from kd.run.directory import RunDirectory
from kd.run.identity import identity

log = logging.getLogger(__name__)


def same_run(run: RunDirectory, name: str, splits: Splits) -> bool:
    """Return whether the directory holds a run, finished or not, with this identity and with these rows."""
    try:
        before, rows = run.config(), run.environment()["data"]
        known = run.status().get("identity") or identity(before)
    except NewerError:
        raise
    except (KDError, KeyError) as error:
        if run.status_file.is_file():
            log.warning("the run in %s cannot be continued: %s", run.path, error)
        return False
    made, made_before = splits.counts.get("transfer_set") or {}, (rows.get("counts") or {}).get("transfer_set") or {}
    same_rows = all(rows.get(split) == sha256 for split, sha256 in row_checksums(splits).items())
    return known == name and same_rows and made.get("sha256") == made_before.get("sha256")


def row_checksums(splits: Splits) -> dict[str, str]:
    """Return the checksums of the texts and labels of each split."""
    return {name: splits.counts["splits"][name]["sha256"] for name in ("train", "validation", "test")}


def checkpoint_of(run: RunDirectory) -> Path | None:
    """Return the checkpoint from which an interrupted run can resume; None if there is none, or one is damaged."""
    last = run.checkpoints / "last.ckpt"
    if not last.is_file():
        return None
    if not all(map(loads, run.checkpoints.glob("*.ckpt"))):
        log.warning("a checkpoint in %s is damaged: the run starts from scratch", run.checkpoints)
        return None
    log.info("resuming the interrupted run from %s", last)
    return last


def loads(checkpoint: Path) -> bool:
    """Return whether a checkpoint is whole: each record has the checksum that torch wrote beside it and can be read."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            if archive.testzip() is not None:  # torch itself does not compare the checksums
                return False
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # a cut or overwritten archive raises any of several exceptions
        return False
    return True
