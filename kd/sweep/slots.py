"""Slots: how many jobs run at the same time, and which GPUs and CPU threads each may use."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from kd.errors import KDError
from kd.sweep.jobs import Job


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time.

    Args:
        gpus: names as in ``CUDA_VISIBLE_DEVICES``; empty for a slot without a GPU.
        threads: number of CPU threads.
    """

    gpus: tuple[str, ...]
    threads: int


def slots_for(jobs: Iterable[Job], asked: int | None, gpus: list[str], cores: int) -> list[Slot]:
    """Divide the machine's GPUs and cores into slots.

    Args:
        jobs: those that will run.
        asked: number of slots; None: as many as there are GPUs for, or one if the jobs use the CPU. torch uses all
            cores for a job, and two jobs with half of the cores each are seldom faster than one after the other.
        gpus, cores: those of the machine.

    Raises:
        KDError: a job needs more GPUs than its slot has.
    """
    jobs = list(jobs)
    needed = max((job.devices for job in jobs if job.on_gpu), default=0) if gpus else 0
    count = asked or (max(1, len(gpus) // needed) if needed else 1)
    threads = max(1, cores // count)
    if not needed:
        return [Slot((), threads)] * count
    shares: list[tuple[str, ...]]
    if len(gpus) < count:  # several slots use the same GPU
        shares = [(gpus[number % len(gpus)],) for number in range(count)]
    else:
        shares = [
            tuple(gpus[number * len(gpus) // count : (number + 1) * len(gpus) // count]) for number in range(count)
        ]
    if min(map(len, shares)) < needed:
        raise KDError(
            f"a job needs trainer.devices={needed}, but {len(gpus)} GPUs in {count} slots leave "
            f"{min(map(len, shares))} for one of them; set hydra.launcher.slots={max(1, len(gpus) // needed)}"
        )
    return [Slot(share, threads) for share in shares]


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, named as in ``CUDA_VISIBLE_DEVICES``, without starting CUDA."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0
    return [str(number) for number in range(count)]


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
