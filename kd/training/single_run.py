"""Train one run of `kd train`, unless it is done: in this process, or as one of several ranks."""

from __future__ import annotations

import logging
import re
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
from kd.runtime import fork_memory, ranks
from kd.runtime.silence import quiet
from kd.storage.files import write_text
from kd.storage.locks import lock_or_refuse
from kd.storage.paths import refuse_link
from kd.training import tracking
from kd.training.resume import checkpoint_of, same_run
from kd.training.train import measure_test, train_rank, train_student

log = logging.getLogger(__name__)

ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "HF_DEACTIVATE_ASYNC_LOAD": "1"}
"""Keeps tokenizers and transformers from starting threads; the latter reads weights in some."""


def train(config: DictConfig, place: Path) -> float | list[float] | None:
    """Train one student, and write the run directory ``place``.

    Returns:
        the figures that ``config.objective`` names; None in a rank other than 0.
    """
    quiet()
    run, rank = RunDirectory(place), ranks.rank()
    ranks.require_size(*(OmegaConf.select(config, f"trainer.{key}", default=1) for key in ("devices", "num_nodes")))
    ranks.send_place(place)
    if rank:
        help_to_train(run, config, rank)
        return None
    try:
        resolved, splits = prepared(config)
    except KDError as error:
        if not run.status_file.exists():
            run.set_status("failed", reason=str(error))
        raise
    with lock_or_refuse(run.path / ".run", f"is training in '{run.path}'; wait for it, or give another hydra.run.dir"):
        return train_in(run, config, resolved, splits)


def remember(settings: dict[str, Any]) -> None:
    """Make what a run with these settings reads before it trains, and keep it for the runs forked from this process.

    These are the rows, the vocabulary, the tokens and the initial word table. Only one thread runs, because a process
    with several cannot be forked.
    """
    quiet()
    config = OmegaConf.create(settings)
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # otherwise tqdm starts a thread that watches its bars
    with ranks.environment(ONE_THREAD), fork_memory.keeping():
        make_absolute(config)
        assemble(config, build.splits(config), build.teacher(config)).share()


def prepared(config: DictConfig) -> tuple[dict[str, Any], Splits]:
    """Check the configuration and read the rows; return the resolved configuration and the rows."""
    make_absolute(config)
    try:
        resolved = resolve(config)
    except MissingMandatoryValue as error:
        raise KDError(f"{error.full_key}: expected a value, got none; set it on the command line") from error
    check(config)
    return resolved, build.splits(config)


def train_in(run: RunDirectory, config: DictConfig, resolved: dict[str, Any], splits: Splits) -> float | list[float]:
    """Do the work of `train`, while no other process may use the run directory."""
    name = identity(resolved)
    same = not config.rerun and same_run(run, name, splits)
    tested = config.get("measure_test", True)
    if same and run.is_done and tested and "test" not in run.metrics():
        run.set_status("running", identity=name)
        measure_test(config, run, splits)
        write_text(run.config_file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        run.set_status("done", identity=name)
        log.info("the test rows were read: %s", run.path)
    if same and run.is_done:
        log.info("already done: %s (rerun=true trains it again)", run.path)
        ranks.send_ready(train=False)
        return run.objective(config.objective)
    refuse_link(run.path, run.path / "previous")
    # A run that was done and is damaged starts from scratch: its checkpoints may be damaged too.
    interrupted = same and run.status()["state"] != "done"
    checkpoint = checkpoint_of(run) if interrupted and config.resume else None
    if checkpoint is None and (place := run.set_aside_products()):
        log.info("an earlier run in this directory was moved to %s", place)
    for place in [*run.path.iterdir(), *run.checkpoints.glob("*")]:  # what a run that is resumed goes on writing
        refuse_link(run.path, place)
    run.set_status("running", identity=name)
    ranks.begin(run.path)
    write_text(run.config_file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    try:
        figures, loggers = train_student(config, run, splits, checkpoint)
    except Pruned as pruned:
        run.set_status("pruned", identity=name, reason=str(pruned))
        raise
    except BaseException as error:
        alone = config.trainer.devices * config.trainer.num_nodes == 1
        # If another rank failed first, this error may only be its consequence.
        reason, lost = None if alone else ranks.read_failure(run.path, wait=ranks.WAIT), lost_connection(error)
        run.set_status("failed", identity=name, reason=reason or lost or f"{type(error).__name__}: {error}")
        if lost:
            raise KDError(f"{reason or lost}; repeat the command to resume") from error
        raise
    finally:
        ranks.forget_ranks()
    run.set_status("done", identity=name)
    tracking.finish(loggers, run, figures)
    split = "test" if tested else "validation"
    metric, found = config.get("metric", "accuracy"), figures[split]
    shown = split, metric.replace("_", " "), found[metric], found["rows"], run.path
    log.info("%s %s %.3f on %d rows; the run is in %s", *shown)
    return run.objective(config.objective)


def lost_connection(error: BaseException) -> str | None:
    """Return a sentence for what torch says if another rank is gone; None for another error."""
    gone = isinstance(error, RuntimeError) and re.search("gloo|NCCL|closed by peer|Connection reset", str(error))
    return "another rank is gone; see its output" if gone else None


def help_to_train(run: RunDirectory, config: DictConfig, rank: int) -> None:
    """Train in a rank other than 0, and write nothing."""
    ranks.die_with_parent()
    try:
        _, splits = prepared(config)
        if not ranks.receive_ready():
            return
        last = run.checkpoints / "last.ckpt"  # rank 0 has moved it away if the run starts from scratch
        train_rank(config, run, splits, last if last.is_file() else None)
    except BaseException as error:
        if lost := lost_connection(error):  # the other rank has the reason
            raise KDError(f"rank {rank}: {lost}") from error
        ranks.write_failure(run.path, rank, f"{type(error).__name__}: {error}")
        raise


def make_absolute(config: DictConfig) -> None:
    """Make the paths of data files absolute, so that `kd evaluate` finds them from another folder."""

    def absolute(place: Any) -> Any:
        return str(Path(place).resolve()) if isinstance(place, str) and Path(place).exists() else place

    named = [(config.data, key) for key in ("path", "train", "validation", "test", "unlabelled")]
    steps = config.transfer.values() if OmegaConf.is_dict(config.get("transfer")) else ()
    others = [*steps, config.get("teacher"), config.get("selection")]
    for node, key in [*named, *((part, "path") for part in others if OmegaConf.is_dict(part))]:
        if place := node.get(key):
            node[key] = [absolute(part) for part in place] if OmegaConf.is_list(place) else absolute(place)
