"""A sweep's jobs on a Ray cluster: each a task that starts the single run which the job would be on this machine.

It stands in the place of the fork server, as `kd.sweep.slurm` does. The task waits for a process of its own, so that
what the run starts (DDP ranks, loaders) ends with it, and Ray's worker stays clean.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kd.errors import KDError
from kd.runtime.ranks import die_with_parent
from kd.sweep.jobs import Job

PASSED_ON = ("PYTHONPATH", "KD_HOME", "HF_HOME", "HF_HUB_OFFLINE")
"""Of this process's environment, where it says where things are; a worker has the cluster's own."""


class RayQueue:
    """Submits tasks, and hears of their ends.

    Args:
        place: the sweep's directory.
        jobs: the sweep's, in which those are found that are started by their number.

    Raises:
        KDError: there is no Ray, or no cluster at the address.
    """

    def __init__(self, place: Path, jobs: Sequence[Job]):
        try:
            import ray
        except ModuleNotFoundError as error:
            raise KDError("hydra/launcher=ray needs Ray; pip install 'kd[ray]'") from error
        self.ray, self.jobs = ray, jobs
        self.tasks: dict[Any, int] = {}
        self.unsaid: list[int] = []
        self.ended: list[Any] = []
        if not ray.is_initialized():
            address = jobs[-1].config.hydra.launcher.address
            try:
                ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
            except (ConnectionError, ValueError) as error:
                raise KDError(f"hydra.launcher.address={address}: {error}") from error

    def warm(self, *_: Any) -> None:
        """Nothing: each job is a process that reads for itself."""

    def start(self, job: int, arguments: list[str], log: Path, *_: Any) -> None:
        """Submit a job."""
        one = next(one for one in self.jobs if one.number == job)
        wanted = OmegaConf.to_container(one.config.hydra.launcher, resolve=True)
        each = wanted["cpus_per_device"]
        task = self.ray.remote(run).options(
            num_cpus=each * one.devices, num_gpus=wanted["gpus"], max_retries=0, resources=wanted["resources"]
        )
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment = passed | {"OMP_NUM_THREADS": str(max(1, int(each)))}
        self.tasks[task.remote(arguments, str(log), os.getcwd(), environment)] = job
        self.unsaid.append(job)

    def wait(self, timeout: float) -> None:
        """Until there is something to be heard, at most so many seconds."""
        if self.tasks and not self.unsaid:
            self.ended, _ = self.ray.wait(list(self.tasks), timeout=max(0.0, timeout))

    def heard(self) -> Iterator[dict[str, Any]]:
        """What the cluster has said meanwhile."""
        while self.unsaid:
            yield {"started": self.unsaid.pop()}  # that is, submitted
        while self.ended:
            task = self.ended.pop()
            job, why, code = self.tasks.pop(task), None, 1
            try:
                code = self.ray.get(task)
            except self.ray.exceptions.RayError as error:
                why = f"Ray: {' '.join(str(error).split())}"
            yield {"ended": job, "code": code, "why": why}

    def stop(self, job: int, number: int) -> None:
        """End a job, whatever the signal."""
        for task, name in self.tasks.items():
            if name == job:
                with contextlib.suppress(self.ray.exceptions.RayError):
                    self.ray.cancel(task, force=True)

    def kill(self) -> None:
        """End tasks of which none was heard of."""
        for job in list(self.tasks.values()):
            self.stop(job, 0)
        self.tasks.clear()

    def close(self) -> None:
        """Nothing of this sweep stays in the cluster."""
        self.kill()
        self.ray.shutdown()


def run(arguments: list[str], log: str, folder: str, environment: dict[str, str]) -> int:
    """What a worker does: a run in a process of its own, with its output in its log; returns the exit code."""
    with open(log, "ab") as printed:
        return subprocess.run(
            [sys.executable, "-m", "kd", *arguments],
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            preexec_fn=die_with_parent,
            check=False,
        ).returncode
