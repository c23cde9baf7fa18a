"""A sweep's jobs in SLURM's queue, through submitit: each batch an array, each job what it would be on this machine.

It stands in the place of the fork server (`kd.sweep.client`), so that the sweep is the same: jobs have an identity and
a directory, what is done is found, what failed is tried again, and the record, the table and the report come from it.
The job's process is ``kd train`` on the job's own overrides, once for each rank. What became of it says its directory;
the queue (``squeue``, so that no accounting is needed) says only whether it still runs.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kd.errors import KDError
from kd.sweep.jobs import Job
from kd.sweep.server import load, redirect, set_threads

log = logging.getLogger(__name__)

ENTRY = "kd.cli:main"
POLL = 5.0
"""Seconds between two looks at the queue."""

NUMBER = ".slurm"
"""In a job's directory: its number in the queue, by which a later command finds it there."""

ENDED = frozenset(
    [
        *("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "BOOT_FAIL"),
        *("OUT_OF_MEMORY", "DEADLINE", "PREEMPTED", "REVOKED"),
    ]
)
OPTIONS = ("timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb")
OF_SLURM = ("partition", "signal_delay_s", "array_parallelism", "setup", "additional_parameters")


class SlurmQueue:
    """Submits jobs, and hears of their ends.

    Args:
        place: the sweep's directory.
        jobs: the sweep's, in which those are found that are started by their number.

    Raises:
        KDError: there is no submitit, or no SLURM.
    """

    def __init__(self, place: Path, jobs: Sequence[Job]):
        try:
            import submitit  # noqa: F401
        except ModuleNotFoundError as error:
            raise KDError("hydra/launcher=slurm needs submitit; pip install 'kd[slurm]'") from error
        self.place, self.jobs = place, jobs
        self.todo: list[tuple[Job, list[str]]] = []
        self.running: dict[int, str] = {}
        self.seen: set[int] = set()
        self.stopping: list[str] = []
        self.news: list[dict[str, Any]] = []

    def warm(self, *_: Any) -> None:
        """Nothing: each job is a process that reads for itself."""

    def start(self, job: int, arguments: list[str], *_: Any) -> None:
        """Ask for a job; it is submitted together with those that are asked for before the next `wait`."""
        self.todo.append((next(one for one in self.jobs if one.number == job), arguments))

    def wait(self, timeout: float) -> None:
        """Until there is something to be heard, at most so many seconds."""
        if self.todo:
            self._submit()
        if self.stopping:
            self._cancel()
        deadline = time.monotonic() + timeout
        while True:
            for message in self._news():
                self.news.append(message)
            if self.news or time.monotonic() >= deadline:
                return
            time.sleep(max(0.0, min(POLL, deadline - time.monotonic())))

    def heard(self) -> Iterator[dict[str, Any]]:
        """What the queue has said meanwhile."""
        while self.news:
            yield self.news.pop(0)

    def stop(self, job: int, number: int) -> None:
        """End a job, whatever the signal: SLURM asks it to end, and kills it when it does not.

        It is cancelled together with those that are stopped before the next `wait`.
        """
        self.todo = [one for one in self.todo if one[0].number != job]
        if job in self.running:
            self.stopping.append(self.running[job])

    def kill(self) -> None:
        """End jobs of which none runs yet."""
        self.close()

    def close(self) -> None:
        """Nothing of this sweep stays in the queue."""
        self.stopping = list(self.running.values())
        if self.stopping:
            self._cancel()

    def _cancel(self) -> None:
        command, self.stopping = ["scancel", *self.stopping], []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            log.warning("%s; what stays in the queue is ended by: %s", done.stderr.strip(), " ".join(command))

    def _news(self) -> Iterator[dict[str, Any]]:
        states = queued()
        if states is None:
            return
        for number, name in list(self.running.items()):
            state = states.get(name, "gone from the queue")
            if state == "RUNNING" and number not in self.seen:
                self.seen.add(number)
                yield {"started": number}
            elif state in ENDED or name not in states:
                del self.running[number]
                fate = None if state in ("COMPLETED", "FAILED") else f"SLURM's job {name}: {state}"
                yield {"ended": number, "code": int(state != "COMPLETED"), "why": fate}

    def _submit(self) -> None:
        """Each job that a former command has not left in the queue, those with the same options as one array."""
        states = queued() or {}
        arrays: dict[str, list[tuple[Job, list[str]]]] = {}
        for job, arguments in self.todo:
            file = job.directory / NUMBER
            name = file.read_text() if file.is_file() else ""
            if states.get(name, "COMPLETED") not in ENDED:
                log.info("%s is in the queue already, as %s", job.name(self.place), name)
                self.running[job.number] = name
            else:
                options = OmegaConf.to_container(job.config.hydra.launcher, resolve=True)
                arrays.setdefault(json.dumps(options), []).append((job, arguments))
        self.todo = []
        for options, members in arrays.items():
            executor = executor_of(self.place / ".submitit" / "%j", json.loads(options), self.place.name)
            try:
                with executor.batch():
                    made = [executor.submit(run, arguments, str(job.log)) for job, arguments in members]
            except Exception as error:  # submitit's own, with sbatch's last line
                said = str(error).strip().splitlines() or [type(error).__name__]
                raise KDError(f"SLURM takes no job of this sweep: {said[-1]}; see hydra.launcher") from error
            for (job, _), one in zip(members, made, strict=True):
                self.running[job.number] = one.job_id
                (job.directory / NUMBER).write_text(one.job_id)


def executor_of(folder: Path, options: Mapping[str, Any], name: str) -> Any:
    """Submitit's, with the options of ``conf/hydra/launcher/slurm.yaml``."""
    import submitit

    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=options["max_num_timeout"])
    except RuntimeError as error:
        raise KDError("hydra/launcher=slurm finds no srun here; start it where sbatch and srun are") from error
    options = dict(options) | {"additional_parameters": {"requeue": True} | options["additional_parameters"]}
    given = {key: options[key] for key in OPTIONS} | {f"slurm_{key}": options[key] for key in OF_SLURM}
    executor.update_parameters(
        name=f"kd-{name}",
        stderr_to_stdout=True,
        slurm_srun_args=["--kill-on-bad-exit=1"],
        **{key: value for key, value in given.items() if value is not None},
    )
    return executor


def queued() -> dict[str, str] | None:
    """The states of this user's jobs, those that ended a while ago included; None where SLURM does not answer."""
    asked = subprocess.run(
        ["squeue", "--me", "--array", "--noheader", "--states=all", "--format=%i %T"],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        log.warning("squeue: %s", asked.stderr.strip())
        return None
    return dict(line.split() for line in asked.stdout.splitlines())


def run(arguments: list[str], place: str) -> None:
    """What a job's processes do where SLURM has put them."""
    if os.environ.get("SLURM_PROCID", "0") == "0":
        redirect(place)
    set_threads(int(os.environ.get("SLURM_CPUS_PER_TASK", "1")))
    sys.argv = ["kd", *arguments]
    if code := load(ENTRY)(arguments):
        raise SystemExit(code)
