"""Run a sweep's jobs on a Ray cluster. Each job is a task that starts the same single run as on this machine.

The task starts the run as a new process and waits for it, so that everything that the run starts (DDP ranks, data
loaders) ends with it, and Ray's worker process stays clean.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd.errors import KDError
from kd.runtime.ranks import die_with_parent
from kd.sweep.jobs import Job
from kd.sweep.queue import Ended, Queue, Started

PASSED_ON = ("PYTHONPATH", "KD_HOME", "HF_HOME", "HF_HUB_OFFLINE")
"""Variables of this process that a job gets; without them a worker would use the cluster's own values."""


class RayQueue(Queue):
    """Submits jobs as Ray tasks.

    Raises:
        KDError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, place: Path, jobs: Sequence[Job]) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise KDError("hydra/launcher=ray needs Ray; pip install 'kd[ray]'") from error
        self.ray, self.jobs = ray, jobs
        self.tasks: dict[Any, int] = {}
        self.submitted: list[int] = []
        self.ended: list[Any] = []
        if not ray.is_initialized():
            address = jobs[-1].config.hydra.launcher.address
            try:
                ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
            except (ConnectionError, ValueError) as error:
                raise KDError(f"hydra.launcher.address={address}: {error}") from error

    def start(self, job: int, arguments: list[str], log: Path, environment: Mapping[str, str], threads: int) -> None:
        one = next(one for one in self.jobs if one.number == job)
        wanted = one.launcher_options()
        each = wanted["cpus_per_device"]
        task = self.ray.remote(run).options(
            num_cpus=each * one.devices, num_gpus=wanted["gpus"], max_retries=0, resources=wanted["resources"]
        )
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        passed["OMP_NUM_THREADS"] = str(max(1, int(each)))
        self.tasks[task.remote(arguments, str(log), os.getcwd(), passed)] = job
        self.submitted.append(job)

    def wait(self, timeout: float) -> None:
        if self.tasks and not self.submitted:
            self.ended, _ = self.ray.wait(list(self.tasks), timeout=max(0.0, timeout))

    def events(self) -> Iterator[Started | Ended]:
        """Yield the events since the last call; a job counts as started when it is submitted."""
        while self.submitted:
            yield Started(self.submitted.pop())
        while self.ended:
            task = self.ended.pop()
            job, reason, code = self.tasks.pop(task), None, 1
            try:
                code = self.ray.get(task)
            except self.ray.exceptions.RayError as error:
                reason = f"Ray: {' '.join(str(error).split())}"
            yield Ended(job, code, reason)

    def stop(self, job: int, number: int) -> None:
        for task, name in self.tasks.items():
            if name == job:
                with contextlib.suppress(self.ray.exceptions.RayError):
                    self.ray.cancel(task, force=True)

    def close(self) -> None:
        for job in list(self.tasks.values()):
            self.stop(job, 0)
        self.tasks.clear()
        self.ray.shutdown()


def run(arguments: list[str], log: str, folder: str, environment: dict[str, str]) -> int:
    """Run ``kd`` in a new process, as the task of a Ray worker, and return its exit code."""
    with open(log, "ab") as output:
        return subprocess.run(
            [sys.executable, "-m", "kd", *arguments],
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,
            check=False,
        ).returncode
