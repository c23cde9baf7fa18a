"""One run of `kd train`: found done, gone on with, or trained anew; by this process or by several ranks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from tqdm import tqdm

import kd.models  # noqa: F401  registers the students
from kd.assembly import assemble
from kd.config import build
from kd.config.check import check
from kd.config.make import resolve
from kd.data.sources import Splits
from kd.errors import KDError, Pruned
from kd.run.directory import RunDirectory
from kd.run.identity import identity
from kd.runtime import fork_memory as memory
from kd.runtime import ranks
from kd.runtime.silence import quiet
from kd.storage.files import write_text
from kd.storage.locks import lock_or_refuse
from kd.training.resume import starting_point
from kd.training.train import train_rank, train_student

log = logging.getLogger(__name__)

ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "HF_DEACTIVATE_ASYNC_LOAD": "1"}
"""What keeps tokenizers and transformers from starting threads, the latter to read weights."""


def train(config: DictConfig, place: Path) -> float | list[float] | None:
    """Train one student and leave a run directory.

    Args:
        config: of the run.
        place: its directory.

    Returns:
        the figures that ``config.objective`` names; None in a rank that only helped to train.
    """
    quiet()
    run, rank = RunDirectory(place), ranks.rank()
    ranks.require_size(*(OmegaConf.select(config, f"trainer.{key}", default=1) for key in ("devices", "num_nodes")))
    ranks.send_place(place)
    if rank:
        return help_to_train(run, config, rank)
    try:
        resolved, splits = prepared(config)
    except KDError as error:
        if not run.status_file.exists():
            run.set_status("failed", reason=str(error))
        raise
    with lock_or_refuse(run.path / ".run", f"is training in '{run.path}'; wait for it, or give another hydra.run.dir"):
        return train_in(run, config, resolved, splits)


def remember(config: dict[str, Any]) -> None:
    """Make what a run reads before it trains, and keep it for the runs that are forked from this process.

    Its rows, its words, its texts in numbers, and the start of its word table. One thread does it, since a process
    with several cannot be forked.

    Args:
        config: of a run, resolved.
    """
    quiet()
    config = OmegaConf.create(config)
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # a thread that watches bars
    with ranks.environment(ONE_THREAD), memory.keeping():
        make_absolute(config)
        assemble(config, build.splits(config), build.teacher(config)).share()


def prepared(config: DictConfig) -> tuple[dict[str, Any], Splits]:
    """The resolved configuration and the rows, both checked."""
    make_absolute(config)
    try:
        resolved = resolve(config)
    except MissingMandatoryValue as error:
        raise KDError(f"{str(error).splitlines()[0]}; set it on the command line") from error
    check(config)
    return resolved, build.splits(config)


def train_in(run: RunDirectory, config: DictConfig, resolved: dict[str, Any], splits: Splits) -> float | list[float]:
    """`train`, with the run directory to itself."""
    name = identity(resolved)
    checkpoint = starting_point(run, resolved, splits, config)
    if checkpoint == "done":
        log.info("already done: %s (rerun=true trains it again)", run.path)
        ranks.send_ready(train=False)
        return run.objective(config.objective)
    run.set_status("running", identity=name)
    ranks.forget_failures(run.path)
    ranks.announce(run.path)
    write_text(run.config_file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    try:
        figures = train_student(config, run, splits, checkpoint)
    except Pruned as pruned:
        run.set_status("pruned", identity=name, reason=str(pruned))
        raise
    except BaseException as error:
        alone = config.trainer.devices * config.trainer.num_nodes == 1
        reason = None if alone else ranks.read_failure(run.path, wait=2.0)  # what this one died of may be the echo
        run.set_status("failed", identity=name, reason=reason or f"{type(error).__name__}: {error}")
        raise
    finally:
        ranks.forget_ranks()
    run.set_status("done", identity=name)
    test = figures["test"]
    log.info("test accuracy %.3f on %d rows; the run is in %s", test["accuracy"], test["rows"], run.path)
    return run.objective(config.objective)


def help_to_train(run: RunDirectory, config: DictConfig, rank: int) -> None:
    """What a rank other than the first does: the same training, and nothing that is written."""
    ranks.die_with_parent()
    try:
        _, splits = prepared(config)
        if not ranks.receive_ready():
            return
        last = run.checkpoints / "last.ckpt"  # rank 0 has moved away what is not to be gone on with
        train_rank(config, run, splits, last if last.is_file() else None)
    except BaseException as error:
        ranks.write_failure(run.path, rank, f"{type(error).__name__}: {error}")
        raise


def make_absolute(config: DictConfig) -> None:
    """Paths of data files as seen from anywhere, so that `kd evaluate` finds them from another folder."""

    def absolute(place: Any) -> Any:
        return str(Path(place).resolve()) if isinstance(place, str) and Path(place).exists() else place

    for key in ("path", "train", "validation", "test", "unlabelled"):
        place = config.data.get(key)
        if place:
            config.data[key] = [absolute(part) for part in place] if OmegaConf.is_list(place) else absolute(place)
