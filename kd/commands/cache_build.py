"""``kd cache build``: tokenise and label the rows of a run before it trains, by one or more processes."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig

from kd.config.check import check_options
from kd.config.compose import composed
from kd.errors import KDError
from kd.runtime import ranks
from kd.runtime.launch import Launch
from kd.runtime.silence import quiet
from kd.training import single_run
from kd.training.train import assembled

WORKER = "KD_CACHE_WORKER"
"""Environment variable with the number of a process that another ``kd cache build`` has started."""
LAUNCHED = ("LOCAL_RANK", "SLURM_LOCALID")
"""Environment variables in which torchrun and srun give the number of a process on its machine."""


def main(arguments: list[str]) -> int:
    """Label all rows that a training run needs, with ``trainer.devices`` processes that share the work."""
    parser = argparse.ArgumentParser(
        prog="kd cache build",
        description="Tokenise and label the rows of a run before it trains. Finished parts are kept: the same command "
        "resumes after an interruption. Several such commands, on one machine or on many that share the outputs, "
        "share the work.",
    )
    parser.add_argument("--config-dir", type=Path, help="your own conf/, as for kd train")
    parser.add_argument("overrides", nargs="*", help="as for kd train; trainer.devices: number of processes")
    options = parser.parse_args(arguments)
    config = composed(options.overrides, options.config_dir)
    check_options(config)
    require_processes(config.trainer.devices)
    launch = Launch.found()
    names = (WORKER, *LAUNCHED) if launch and launch.size > 1 else (WORKER,)
    number = next((int(os.environ[name]) for name in names if name in os.environ), None)
    if WORKER in os.environ:
        ranks.die_with_parent()
    command = [sys.executable, "-m", "kd", "cache", "build", *arguments]
    started = range(1, config.trainer.devices) if number is None else ()
    others = [subprocess.Popen(command, env={**os.environ, WORKER: str(other)}) for other in started]
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    try:
        with ranks.alone():  # the processes share the work, but are no ranks of a Trainer
            label(config, number or 0)
    except BaseException:
        for other in others:
            other.terminate()
        raise
    return max((other.wait() for other in others), default=0)


def require_processes(wanted: int) -> None:
    """Refuse more processes than this machine can run; each of them has a teacher in memory.

    Raises:
        KDError: there are more than four for each core, and more than GPUs.
    """
    most = max(4 * (os.cpu_count() or 1), torch.cuda.device_count())
    if wanted > most:
        raise KDError(f"trainer.devices: expected at most {most} processes on this machine, got {wanted}; lower it")


def label(config: DictConfig, number: int) -> None:
    """Compute what a run needs of the teacher, before and after its training.

    Args:
        config: of the run.
        number: of this process among those on this machine.
    """
    quiet()
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    _, splits = single_run.prepared(config)
    assembly, _, data = assembled(config, splits)
    if config.cache.use and assembly.outputs.teacher:
        for name in ("validation", "test"):
            assembly.teacher_logits(name)
    print(f"labelled: {len(data.train):,} training rows")
