"""``kd cache build``: cut and label the rows of a run before it trains, shard by shard, by several processes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig

from kd.config.check import check_options
from kd.config.compose import composed
from kd.runtime import ranks
from kd.runtime.launch import Launch
from kd.runtime.silence import quiet
from kd.training import single_run
from kd.training.train import assembled

WORKER = "KD_CACHE_WORKER"
"""The number of a process that another ``kd cache build`` has started."""
LAUNCHED = ("LOCAL_RANK", "SLURM_LOCALID")
"""Where a launcher that starts several processes, such as torchrun or srun, says which this one is on its machine."""


def main(arguments: list[str]) -> int:
    """Label all that a training run would ask for, with ``trainer.devices`` processes that take pieces in turn."""
    parser = argparse.ArgumentParser(
        prog="kd cache build",
        description="Cut and label the rows of a run before it trains. What is whole is kept: the same command goes on "
        "where it was interrupted, and several of them at once, on one machine or many that share the outputs, divide "
        "the work.",
    )
    parser.add_argument("--config-dir", type=Path, help="your own conf/, as for kd train")
    parser.add_argument("overrides", nargs="*", help="as for kd train; trainer.devices: how many processes")
    options = parser.parse_args(arguments)
    config = composed(options.overrides, options.config_dir)
    check_options(config)
    launch = Launch.found()
    names = (WORKER, *LAUNCHED) if launch and launch.size > 1 else (WORKER,)
    number = next((int(os.environ[name]) for name in names if name in os.environ), None)
    if WORKER in os.environ:
        ranks.die_with_parent()
    others = [] if number is not None else [_worker(arguments, n) for n in range(1, config.trainer.devices)]
    try:
        with told(), ranks.alone():  # the processes share the work, and are no ranks of a Trainer
            label(config, number or 0)
    except BaseException:
        for other in others:
            other.terminate()
        raise
    return max((other.wait() for other in others), default=0)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Print what is logged, for a while, as kd train does it."""
    handler, root = logging.StreamHandler(sys.stdout), logging.getLogger()
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%H:%M:%S"))
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def _worker(arguments: list[str], number: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "kd", "cache", "build", *arguments]
    return subprocess.Popen(command, env={**os.environ, WORKER: str(number)})


def label(config: DictConfig, number: int) -> None:
    """What a run does before it trains, and what it asks the teacher afterwards.

    Args:
        number: of this process among those on this machine.
    """
    quiet()
    if config.threads:
        torch.set_num_threads(config.threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    _, splits = single_run.prepared(config)
    assembly, _, data = assembled(config, splits)
    if config.cache.use and assembly.outputs.teacher:
        for name in ("validation", "test"):
            assembly.teacher_logits(name)
    print(f"labelled: {len(data.train):,} training rows")
