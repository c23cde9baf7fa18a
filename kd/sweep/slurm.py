"""Run a sweep's jobs in SLURM's queue, through submitit. Each batch of jobs is one array.

Apart from where its jobs run, the sweep is the same as with the fork server (`kd.sweep.client`): finished jobs are
found, failed jobs are tried again, and record, table and report are made in the same way. SLURM starts ``kd train``
with the job's overrides, one process a rank. The result of a job is read from its directory. The queue is only asked
whether the job still runs, and only with ``squeue``, which needs no accounting database.
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

from kd.errors import KDError
from kd.sweep.jobs import Job
from kd.sweep.queue import Ended, Queue, Started
from kd.sweep.server import load, redirect, set_threads

log = logging.getLogger(__name__)

ENTRY = "kd.cli:main"
POLL = 5.0
"""Seconds between two calls of ``squeue``."""

NUMBER = ".slurm"
"""File in a job's directory: its SLURM job id, so that a later command finds the job in the queue."""

ENDED = frozenset(
    [
        *("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "BOOT_FAIL"),
        *("OUT_OF_MEMORY", "DEADLINE", "PREEMPTED", "REVOKED"),
    ]
)
OPTIONS = ("timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb")
OF_SLURM = ("partition", "signal_delay_s", "array_parallelism", "setup", "additional_parameters")


class SlurmQueue(Queue):
    """Submits jobs to SLURM.

    Raises:
        KDError: submitit is not installed.
    """

    def __init__(self, place: Path, jobs: Sequence[Job]) -> None:
        try:
            import submitit  # noqa: F401
        except ModuleNotFoundError as error:
            raise KDError("hydra/launcher=slurm needs submitit; pip install 'kd[slurm]'") from error
        self.place, self.jobs = place, jobs
        self.todo: list[tuple[Job, list[str]]] = []
        self.submitted: dict[int, str] = {}
        """SLURM's job ids, by job number."""
        self.running: set[int] = set()
        self.stopping: list[str] = []
        self.unread: list[Started | Ended] = []

    def start(self, job: int, arguments: list[str], log: Path, environment: Mapping[str, str], threads: int) -> None:
        """Keep a job for the next `wait`, which submits all jobs that were kept as one array."""
        self.todo.append((next(one for one in self.jobs if one.number == job), arguments))

    def wait(self, timeout: float) -> None:
        if self.todo:
            self._submit()
        if self.stopping:
            self._cancel()
        deadline = time.monotonic() + timeout
        while True:
            self.unread += self._changes()
            if self.unread or time.monotonic() >= deadline:
                return
            time.sleep(max(0.0, min(POLL, deadline - time.monotonic())))

    def events(self) -> Iterator[Started | Ended]:
        while self.unread:
            yield self.unread.pop(0)

    def stop(self, job: int, number: int) -> None:
        """Cancel a job at the next `wait`, whatever the signal: SLURM asks it to end, and kills it if it does not."""
        self.todo = [one for one in self.todo if one[0].number != job]
        if job in self.submitted:
            self.stopping.append(self.submitted[job])

    def close(self) -> None:
        self.stopping = list(self.submitted.values())
        if self.stopping:
            self._cancel()

    def _cancel(self) -> None:
        command, self.stopping = ["scancel", *self.stopping], []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            log.warning("%s; what stays in the queue is ended by: %s", done.stderr.strip(), " ".join(command))

    def _changes(self) -> Iterator[Started | Ended]:
        """Compare the queue with what was reported, and yield the differences."""
        states = queued()
        if states is None:
            return
        for number, name in list(self.submitted.items()):
            state = states.get(name, "gone from the queue")
            if state == "RUNNING" and number not in self.running:
                self.running.add(number)
                yield Started(number)
            elif state in ENDED or name not in states:
                del self.submitted[number]
                reason = None if state in ("COMPLETED", "FAILED") else f"SLURM's job {name}: {state}"
                yield Ended(number, int(state != "COMPLETED"), reason)

    def _submit(self) -> None:
        """Submit the kept jobs, one array for each set of options; skip jobs that an earlier command left queued."""
        states = queued() or {}
        arrays: dict[str, list[tuple[Job, list[str]]]] = {}
        for job, arguments in self.todo:
            file = job.directory / NUMBER
            name = file.read_text() if file.is_file() else ""
            if states.get(name, "COMPLETED") not in ENDED:
                log.info("%s is in the queue already, as %s", job.name(self.place), name)
                self.submitted[job.number] = name
            else:
                arrays.setdefault(json.dumps(job.launcher_options()), []).append((job, arguments))
        self.todo = []
        for options, members in arrays.items():
            executor = executor_of(self.place / ".submitit" / "%j", json.loads(options), self.place.name)
            try:
                with executor.batch():
                    made = [executor.submit(run, arguments, str(job.log)) for job, arguments in members]
            except Exception as error:  # submitit's own class, with sbatch's last line
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise KDError(f"SLURM accepts no job of this sweep: {lines[-1]}; see hydra.launcher") from error
            for (job, _), one in zip(members, made, strict=True):
                self.submitted[job.number] = one.job_id
                (job.directory / NUMBER).write_text(one.job_id)


def executor_of(folder: Path, options: Mapping[str, Any], name: str) -> Any:
    """Return submitit's executor with the options of ``conf/hydra/launcher/slurm.yaml``."""
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
    """Return the states of this user's jobs by job id, recently ended jobs included; None if squeue fails."""
    done = subprocess.run(
        ["squeue", "--me", "--array", "--noheader", "--states=all", "--format=%i %T"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        log.warning("squeue: %s", done.stderr.strip())
        return None
    return dict(line.split() for line in done.stdout.splitlines())


def run(arguments: list[str], place: str) -> None:
    """Run ``kd`` in a process that SLURM has started; the first process writes the job's log."""
    if os.environ.get("SLURM_PROCID", "0") == "0":
        redirect(place)
    set_threads(int(os.environ.get("SLURM_CPUS_PER_TASK", "1")))
    sys.argv = ["kd", *arguments]
    if code := load(ENTRY)(arguments):
        raise SystemExit(code)
