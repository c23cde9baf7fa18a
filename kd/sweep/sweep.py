"""Run the jobs of a sweep and keep its record."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from kd.errors import KDError
from kd.runtime.ranks import read_failure
from kd.storage.locks import lock_or_refuse, look_again
from kd.sweep.client import ForkServer
from kd.sweep.interrupts import Interrupts
from kd.sweep.jobs import Job, known_runs, plan
from kd.sweep.progress import Progress
from kd.sweep.queue import Ended, MakeQueue, Queue, Started
from kd.sweep.record import Record
from kd.sweep.slots import Slot, slots_for, usable_cores, visible_gpus

ENTRY = "kd.cli:main"
PRELOAD = [
    *("kd.training.single_run", "kd.losses.logits", "kd.losses.label", "hydra._internal.logging_config"),
    *("transformers.models.bert.modeling_bert", "transformers.models.bert.tokenization_bert"),
]
"""What the fork server imports before the first job, so that no job has to."""
WARM = "kd.training.single_run:remember"
GRACE = 10.0
"""Seconds that a job has to end in order after Ctrl-C; a second Ctrl-C kills it at once."""


@dataclass
class Running:
    """A job that was given to the queue."""

    job: Job
    slot: Slot
    before: bytes | None  # content of the run's status file before the start
    start: float = math.inf  # monotonic time, infinite until the queue reports the start
    reason: str | None = None  # why the job was stopped or ended, if not by itself


class Sweep:
    """Runs batches of jobs for Hydra's sweeper.

    Args:
        master: the sweep's configuration, with Hydra's keys.
        loader: Hydra's loader, which composes the jobs' configurations.
        command: the user's command line, for the record.
        flags: its options that are no overrides.
        slots: how many jobs run at the same time; see `kd.sweep.slots.slots_for`.
        timeout_min: minutes after which a job counts as hanging and is killed; None: never.
        make_queue: what starts the jobs on a cluster, such as `kd.sweep.slurm.SlurmQueue`; None: they are forked on
            this machine.

    Raises:
        KDError: another process runs this sweep, or a setting is outside its range.
    """

    def __init__(
        self,
        master: DictConfig,
        loader: ConfigLoader,
        command: list[str],
        flags: list[str],
        slots: int | None,
        timeout_min: float | None,
        make_queue: MakeQueue | None = None,
    ) -> None:
        if slots is not None and not (type(slots) is int and slots > 0):
            raise KDError(f"hydra.launcher.slots: expected a whole number of at least 1, or null, got {slots!r}")
        if timeout_min is not None and not (isinstance(timeout_min, (int, float)) and timeout_min > 0):
            raise KDError(f"hydra.launcher.timeout_min: expected minutes above 0, or null, got {timeout_min!r}")
        self.master, self.loader, self.flags = master, loader, flags
        self.place = Path(str(master.hydra.sweep.dir)).absolute()
        self.asked, self.longest = slots, None if timeout_min is None else 60 * timeout_min
        self.timeout = self.longest
        """Seconds that a job may take now; a search that ends soon lowers it."""
        self.place.mkdir(parents=True, exist_ok=True)
        self.lock = lock_or_refuse(
            self.place / ".sweep", f"runs the sweep in '{self.place}'; wait for it, or give another name: sweep=NAME"
        )
        self.record = Record(self.place, command)
        self.known = known_runs(self.place)
        self.make_queue = make_queue
        self.queue: Queue | None = None
        self.slots: list[Slot] = []
        self.warmed: set[str] = set()
        """What the fork server has in memory, by `Job.reads`."""
        OPENED.append(self)

    def launch(self, batch: Sequence[Sequence[str]], first: int) -> list[Job]:
        """Run the jobs of a batch that are not done, and wait until they have ended."""
        jobs = plan(self.loader, self.master, batch, first, self.known, self.record.jobs)
        mine: dict[str, Job] = {}
        for job in jobs:
            self.known[job.identity] = job.directory
            job.attempts = self.record.attempts.get(job.identity, 0)
            if mine.setdefault(job.identity, job) is job:
                self._look_up(job)
        self.record.jobs += jobs
        waiting = [job for job in mine.values() if job.state == "waiting"]
        self._copy_states(jobs, mine)
        if waiting:
            self.slots, self.queue = self._open(waiting)
            with Progress(self.record.jobs, self.place, len(self.slots)) as progress, Interrupts() as interrupts:
                self._run(self.queue, waiting, progress, interrupts)
        self._copy_states(jobs, mine)
        return jobs

    def _open(self, waiting: Sequence[Job]) -> tuple[list[Slot], Queue]:
        """Return slots for these jobs and the queue, which is made for the first batch.

        A cluster has its own limits, so there every job has a slot.
        """
        if self.make_queue:
            return [Slot((), 1)] * len(waiting), self.queue or self.make_queue(self.place, self.record.jobs)
        slots = slots_for(waiting, self.asked, visible_gpus(), usable_cores())
        return slots, self.queue or ForkServer(ENTRY, PRELOAD, self.place / "launcher.log")

    def close(self) -> None:
        """End what still runs, write the record, and release the sweep's folder."""
        if self.queue:
            self.queue.close()
            self.queue = None
        if self.lock.is_locked:
            self.record.write(finished=all(job.state not in ("running", "waiting") for job in self.record.jobs))
            self.lock.release()

    def refuse_failures(self) -> None:
        """Raise a `KDError` with the first job that failed and its reason, if there is one."""
        own = {job.identity: job for job in reversed(self.record.jobs)}
        failed = [job for job in own.values() if job.state == "failed"]
        if failed:
            one = min(failed, key=lambda job: job.number)
            raise KDError(f"{len(failed)} of {len(own)} jobs failed; the first, {one.name(self.place)}: {one.reason}")

    def _look_up(self, job: Job) -> None:
        """Set a job's state to done if its run was done before this command, or by an earlier batch of it."""
        earlier = next((one for one in self.record.jobs if one.identity == job.identity), None)
        if earlier is None and OmegaConf.select(job.config, "rerun"):
            return
        with contextlib.suppress(KDError):
            if job.run.is_done and job.run.status().get("identity") == job.identity:
                if "test" not in job.run.metrics() and OmegaConf.select(job.config, "measure_test"):
                    return
                job.state, job.found = "done", earlier is None or earlier.found

    def _copy_states(self, jobs: Sequence[Job], mine: dict[str, Job]) -> None:
        """Copy the state of each run to all jobs that are this run, and write the record."""
        for job in jobs:
            one = mine[job.identity]
            job.state, job.reason, job.seconds = one.state, one.reason, one.seconds
            job.attempts, job.found = one.attempts, one.found
        self.record.write()

    def _run(self, queue: Queue, waiting: Sequence[Job], progress: Progress, interrupts: Interrupts) -> None:
        todo, free = list(waiting), list(self.slots)
        running: dict[int, Running] = {}
        readers = Counter(job.reads for job in waiting)
        try:
            while todo or running:
                while todo and free:
                    job = todo.pop(0)
                    one = running[job.number] = Running(job, free.pop(0), status_bytes(job))
                    # Reading in advance takes time, so it must serve several jobs, or the only one.
                    if job.reads not in self.warmed and (readers[job.reads] > 1 or len(waiting) == 1):
                        self.warmed.add(job.reads)
                        queue.warm(WARM, job.task)
                    self._start(queue, one, progress)
                with interrupts.allowed():
                    queue.wait(self._seconds_to_wait(running))
                for event in queue.events():
                    if isinstance(event, Started):
                        running[event.job].start = progress.since[event.job] = time.monotonic()
                    else:
                        one = running.pop(event.job)
                        free.append(one.slot)
                        one.reason = one.reason or event.reason
                        self._end(one, event.code, progress)
                self._stop_hanging(queue, running)
        except BaseException as error:
            self._interrupt(queue, running, progress, interrupts, error)
            raise

    def _start(self, queue: Queue, one: Running, progress: Progress) -> None:
        job, slot = one.job, one.slot
        job.state, job.attempts = "running", job.attempts + 1
        job.directory.mkdir(parents=True, exist_ok=True)
        with job.log.open("a") as log:
            log.write(f"== attempt {job.attempts}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(slot.gpus)} if slot.gpus else {}
        threads = max(1, slot.threads // job.devices)  # of each rank
        queue.start(job.number, job.arguments(self.flags), job.log, environment, threads)
        progress.started(job)
        self.record.write()

    def _end(self, one: Running, code: int, progress: Progress) -> None:
        job = one.job
        job.seconds = round(max(0.0, time.monotonic() - one.start), 2)
        state, written = status_since(job, one.before)
        if state in ("done", "pruned"):  # the run is complete, whatever ended the process afterwards
            job.state, job.reason = state, written
        else:
            job.state, job.reason = "failed", one.reason or failure(job, code, written)
            if state != "failed":  # the job had no time to write it itself
                job.run.set_status("failed", identity=job.identity, reason=job.reason)
        progress.ended(job)
        self.record.write()

    def _seconds_to_wait(self, running: dict[int, Running]) -> float:
        """Return the seconds until the first running job reaches the timeout."""
        if self.timeout is None or not running:
            return 3600.0
        first = min(one.start for one in running.values())
        return min(3600.0, max(0.01, first + self.timeout - time.monotonic()))

    def _stop_hanging(self, queue: Queue, running: dict[int, Running]) -> None:
        for one in running.values():
            if self.timeout and one.reason is None and time.monotonic() - one.start > self.timeout:
                own = f"did not end within hydra.launcher.timeout_min={self.timeout / 60:g}"
                one.reason = own if self.timeout == self.longest else "the time of the search was over"
                queue.stop(one.job.number, signal.SIGKILL)

    def _interrupt(
        self,
        queue: Queue,
        running: dict[int, Running],
        progress: Progress,
        interrupts: Interrupts,
        error: BaseException,
    ) -> None:
        """End the running jobs, in order if there is time; jobs that have not started stay waiting."""
        reason = f"the sweep was interrupted ({interrupts.cause(error)})"
        pending = [number for number, one in running.items() if one.start == math.inf]
        for number in pending:  # the server still imports or reads, or the cluster has no room yet
            job = running.pop(number).job
            job.state, job.attempts = "waiting", job.attempts - 1
        if not running:
            queue.kill()
            return
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(KDError):
            for number in pending:
                queue.stop(number, signal.SIGKILL)
            for number in running:
                queue.stop(number, signal.SIGINT)
            while running and time.monotonic() < deadline + GRACE:
                if len(interrupts.received) > 1:
                    deadline = min(deadline, time.monotonic())
                if time.monotonic() >= deadline:
                    for number in running:
                        queue.stop(number, signal.SIGKILL)
                queue.wait(0.2)
                for event in queue.events():
                    if isinstance(event, Ended) and event.job in running:
                        one = running.pop(event.job)
                        one.reason = None if event.code == 0 else reason
                        self._end(one, event.code, progress)
        for one in running.values():
            one.job.state, one.job.reason = "failed", reason
            one.job.run.set_status("failed", identity=one.job.identity, reason=reason)


OPENED: list[Sweep] = []
"""The sweeps of this process. Their user must close them: Hydra does not call a launcher at the end of a sweep."""


def status_bytes(job: Job) -> bytes | None:
    """Read the run's status file, whichever machine wrote it; return None if there is none."""
    look_again(job.directory)
    try:
        return job.run.status_file.read_bytes()
    except OSError:
        return None


def status_since(job: Job, before: bytes | None) -> tuple[str | None, str | None]:
    """Return the state and reason that a run has written since its start; (None, None) if it has written nothing.

    Contents are compared and not times, because another machine or a file server may have another clock.
    """
    if status_bytes(job) in (None, before):
        return None, None
    try:
        status = job.run.status()
    except KDError:
        return None, None
    return status.get("state"), status.get("reason")


def failure(job: Job, code: int, written: str | None) -> str:
    """Return why a job failed: what a rank or the run has written down, the signal that killed it, or its last line."""
    if found := read_failure(job.directory) or written:
        return found
    if code < 0:
        name = signal.Signals(-code).name
        memory = ": by hand, or by the kernel when memory ran out" if name == "SIGKILL" else ""
        return f"killed by {name}{memory}"
    lines = job.log.read_text(errors="replace").strip().splitlines() if job.log.is_file() else []
    own = [line for line in lines if line.startswith("kd train: ")]
    last = (own or lines or ["nothing printed"])[-1]
    return last.removeprefix("kd train: ")
