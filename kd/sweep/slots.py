"""Slots: how many jobs run side by side, and what each may compute on."""

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
        gpus: what it may see, as ``CUDA_VISIBLE_DEVICES`` names them; empty for a slot of CPU threads.
        threads: of the CPU.
    """

    gpus: tuple[str, ...]
    threads: int

    def environment(self) -> dict[str, str]:
        """What a job in this slot finds."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}

    def threads_for(self, job: Job) -> int:
        """Of each of the job's ranks."""
        return max(1, self.threads // job.devices)


def slots_for(jobs: Iterable[Job], asked: int | None, gpus: list[str], cores: int) -> list[Slot]:
    """The machine's GPUs and cores, shared out.

    Args:
        asked: how many; None: a slot for each set of GPUs that a job needs, or one where jobs compute on the CPU:
            torch uses all cores for a job, and two jobs with half of them each are seldom faster than one after the
            other.
        gpus: that there are.
        cores: that there are.

    Raises:
        KDError: a job that wants more GPUs than its slot has.
    """
    jobs = list(jobs)
    needed = max((job.devices for job in jobs if job.on_gpu), default=0) if gpus else 0
    count = asked or (max(1, len(gpus) // needed) if needed else 1)
    threads = max(1, cores // count)
    if not needed:
        return [Slot((), threads)] * count
    if len(gpus) < count:  # some share one
        shares = [(gpus[number % len(gpus)],) for number in range(count)]
    else:
        shares = [
            tuple(gpus[number * len(gpus) // count : (number + 1) * len(gpus) // count]) for number in range(count)
        ]
    if min(map(len, shares)) < needed:
        raise KDError(
            f"a job wants trainer.devices={needed}, and of {len(gpus)} GPUs in {count} slots one has "
            f"{min(map(len, shares))}; set hydra.launcher.slots={max(1, len(gpus) // needed)}"
        )
    return [Slot(share, threads) for share in shares]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; CUDA itself is not touched."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0
    return [str(number) for number in range(count)]


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
