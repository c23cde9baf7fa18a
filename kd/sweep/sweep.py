"""A sweep from its first job to its table."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from kd.errors import KDError
from kd.runtime.ranks import told_failure
from kd.storage.locks import lock_or_refuse, look_again
from kd.sweep.client import ForkServer
from kd.sweep.interrupts import Interrupts
from kd.sweep.jobs import Job, known_runs, plan
from kd.sweep.progress import Progress
from kd.sweep.record import Record
from kd.sweep.slots import Slot, slots_for, usable_cores, visible_gpus

ENTRY = "kd.cli:main"
PRELOAD = [
    *("kd.training.single_run", "kd.losses.logits", "kd.losses.label", "hydra._internal.logging_config"),
    *("transformers.models.bert.modeling_bert", "transformers.models.bert.tokenization_bert"),
]
"""What a job imports: all of it at once, or late, as transformers does with a teacher's architecture."""
WARM = "kd.training.single_run:remember"
GRACE = 10.0
"""Seconds that a job has to end in order after Ctrl-C; none after the second."""


@dataclass
class Running:
    """A job in its slot, since when, and what was done to it."""

    job: Job
    slot: Slot
    before: bytes | None  # its status file as it was
    start: float = math.inf  # until it is forked, which the first job's waits for the imports
    asked_to_end: str | None = None


class Sweep:
    """Runs batches of jobs, as a sweeper asks for them, and keeps the record.

    Args:
        master: the sweep's configuration, with Hydra's keys.
        loader: of the jobs' configurations.
        command: as the user gave it, for the record.
        flags: of the command line that are no overrides.
        slots: how many jobs run side by side; see `kd.sweep.slots.slots_for`.
        timeout_min: minutes after which a job counts as hanging; None: never.
        queue: (the sweep's directory, its jobs) -> what starts them elsewhere, as `kd.sweep.slurm.SlurmQueue`; None:
            they are forked here.

    Raises:
        KDError: another process runs this sweep.
    """

    def __init__(
        self,
        master: DictConfig,
        loader: ConfigLoader,
        command: list[str],
        flags: list[str],
        slots: int | None,
        timeout_min: float | None,
        queue: Callable[[Path, Sequence[Job]], Any] | None = None,
    ):
        if slots is not None and not (type(slots) is int and slots > 0):
            raise KDError(f"hydra.launcher.slots: expected a whole number of at least 1, or null, got {slots!r}")
        if timeout_min is not None and not (isinstance(timeout_min, (int, float)) and timeout_min > 0):
            raise KDError(f"hydra.launcher.timeout_min: expected minutes above 0, or null, got {timeout_min!r}")
        self.master, self.loader, self.flags = master, loader, flags
        self.place = Path(str(master.hydra.sweep.dir)).absolute()
        self.asked, self.timeout = slots, None if timeout_min is None else 60 * timeout_min
        self.place.mkdir(parents=True, exist_ok=True)
        self.lock = lock_or_refuse(
            self.place / ".sweep", f"runs the sweep in '{self.place}'; wait for it, or give another name: sweep=NAME"
        )
        self.record = Record(self.place, command)
        self.known = known_runs(self.place)
        self.queue = queue
        self.server: Any = None  # a ForkServer, or what the queue gives
        self.slots: list[Slot] = []
        self.remembered: set[str] = set()
        """What the fork server holds in memory, by `Job.reads`."""
        OPENED.append(self)

    def launch(self, batch: Sequence[Sequence[str]], first: int) -> list[Job]:
        """Run the jobs of a batch, those that are not done, and wait for their ends."""
        jobs = plan(self.loader, self.master, batch, first, self.known, self.record.jobs)
        mine: dict[str, Job] = {}
        for job in jobs:
            self.known[job.identity] = job.directory
            job.attempts = self.record.attempts.get(job.identity, 0)
            if mine.setdefault(job.identity, job) is job:
                self._look_up(job)
        self.record.jobs += jobs
        waiting = [job for job in mine.values() if job.state == "waiting"]
        self._settle(jobs, mine)
        if waiting:
            self._open(waiting)
            with Progress(self.record.jobs, self.place, len(self.slots)) as progress, Interrupts() as interrupts:
                self._run(waiting, progress, interrupts)
        self._settle(jobs, mine)
        return jobs

    def _open(self, waiting: Sequence[Job]) -> None:
        """Ready to start these jobs: in slots of this machine, or all at once in a queue that shares out its own."""
        if self.queue:
            self.slots = [Slot((), 1)] * len(waiting)
            self.server = self.server or self.queue(self.place, self.record.jobs)
            return
        self.slots = slots_for(waiting, self.asked, visible_gpus(), usable_cores())
        if self.server is None:
            self.server = ForkServer(ENTRY, PRELOAD, self.place / "launcher.log")

    def close(self) -> None:
        """The sweep is over: nothing runs any more, and the record says so."""
        if self.server:
            self.server.close()
            self.server = None
        if self.lock.is_locked:
            self.record.write(finished=all(job.state not in ("running", "waiting") for job in self.record.jobs))
            self.lock.release()

    def refuse_failures(self) -> None:
        """Raises:
        KDError: with the first failure, where a job failed.
        """
        own = {job.identity: job for job in reversed(self.record.jobs)}
        failed = [job for job in own.values() if job.state == "failed"]
        if failed:
            one = min(failed, key=lambda job: job.number)
            raise KDError(f"{len(failed)} of {len(own)} jobs failed; the first, {one.name(self.place)}: {one.reason}")

    def _look_up(self, job: Job) -> None:
        """Whether it was done before this command, or by an earlier batch of it."""
        earlier = next((one for one in self.record.jobs if one.identity == job.identity), None)
        if earlier is None and OmegaConf.select(job.config, "rerun"):
            return
        with contextlib.suppress(KDError):
            if job.run.is_done and job.run.status().get("identity") == job.identity:
                job.run.metrics()
                job.state, job.found = "done", earlier is None or earlier.found

    def _settle(self, jobs: Sequence[Job], mine: dict[str, Job]) -> None:
        """Jobs that are the same run share its fate."""
        for job in jobs:
            one = mine[job.identity]
            job.state, job.reason, job.seconds = one.state, one.reason, one.seconds
            job.attempts, job.found = one.attempts, one.found
        self.record.write()

    def _run(self, waiting: Sequence[Job], progress: Progress, interrupts: Interrupts) -> None:
        todo, free, running = list(waiting), list(self.slots), {}
        readers = Counter(job.reads for job in waiting)
        try:
            while todo or running:
                while todo and free:
                    job = todo.pop(0)
                    one = Running(job, free.pop(0), status_bytes(job))
                    running[job.number] = one
                    if job.reads not in self.remembered and (readers[job.reads] > 1 or len(waiting) == 1):
                        self.remembered.add(job.reads)
                        self.server.warm(WARM, job.task)
                    self._start(one, progress)
                with interrupts.heeded():
                    self.server.wait(self._patience(running))
                for message in self.server.heard():
                    if "started" in message:
                        running[message["started"]].start = time.monotonic()
                        progress.since[message["started"]] = time.monotonic()
                    if "ended" in message:
                        one = running.pop(message["ended"])
                        free.append(one.slot)
                        one.asked_to_end = one.asked_to_end or message.get("why")
                        self._end(one, message["code"], progress)
                self._end_hanging(running)
        except BaseException as error:
            self._interrupt(running, progress, interrupts, error)
            raise

    def _start(self, one: Running, progress: Progress) -> None:
        job, slot = one.job, one.slot
        job.state, job.attempts = "running", job.attempts + 1
        job.directory.mkdir(parents=True, exist_ok=True)
        with job.log.open("a") as log:
            log.write(f"== attempt {job.attempts}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        self.server.start(job.number, job.arguments(self.flags), job.log, slot.environment(), slot.threads_for(job))
        progress.started(job)
        self.record.write()

    def _end(self, one: Running, code: int, progress: Progress) -> None:
        job = one.job
        job.seconds = round(max(0.0, time.monotonic() - one.start), 2)
        state, said = status_since(job, one.before)
        if state in ("done", "pruned"):  # said last, whatever ended the process afterwards
            job.state, job.reason = state, said
        else:
            job.state, job.reason = "failed", one.asked_to_end or reason(job, code, said)
            if state != "failed":  # it had no time to say so itself
                job.run.set_status("failed", identity=job.identity, reason=job.reason)
        progress.ended(job)
        self.record.write()

    def _patience(self, running: dict[int, Running]) -> float:
        """Seconds until something has to be done that nobody will say."""
        if self.timeout is None or not running:
            return 3600.0
        first = min(one.start for one in running.values())
        return min(3600.0, max(0.01, first + self.timeout - time.monotonic()))

    def _end_hanging(self, running: dict[int, Running]) -> None:
        for one in running.values():
            if self.timeout and one.asked_to_end is None and time.monotonic() - one.start > self.timeout:
                one.asked_to_end = f"did not end within hydra.launcher.timeout_min={self.timeout / 60:g}"
                self.server.stop(one.job.number, signal.SIGKILL)

    def _interrupt(
        self, running: dict[int, Running], progress: Progress, interrupts: Interrupts, error: BaseException
    ) -> None:
        """End what runs, in order where there is time; what has not begun stays waiting."""
        word = f"the sweep was interrupted ({interrupts.said(error)})"
        pending = [number for number, one in running.items() if one.start == math.inf]
        for number in pending:  # until the server has imported or read, or the queue has room
            job = running.pop(number).job
            job.state, job.attempts = "waiting", job.attempts - 1
        if not running:
            self.server.kill()
            return
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(KDError):
            for job in pending:
                self.server.stop(job, signal.SIGKILL)
            for job in running:
                self.server.stop(job, signal.SIGINT)
            while running and time.monotonic() < deadline + GRACE:
                if len(interrupts.sent) > 1:
                    deadline = min(deadline, time.monotonic())
                if time.monotonic() >= deadline:
                    for job in running:
                        self.server.stop(job, signal.SIGKILL)
                self.server.wait(0.2)
                for message in self.server.heard():
                    if message.get("ended") in running:
                        one = running.pop(message["ended"])
                        one.asked_to_end = None if message["code"] == 0 else word
                        self._end(one, message["code"], progress)
        for one in running.values():
            one.job.state, one.job.reason = "failed", word
            one.job.run.set_status("failed", identity=one.job.identity, reason=word)


OPENED: list[Sweep] = []
"""The sweeps of this process, for whoever closes them: Hydra tells a launcher of its beginning, not of its end."""


def status_bytes(job: Job) -> bytes | None:
    """What the run's status file holds, whichever machine wrote it; None where there is none."""
    look_again(job.directory)
    try:
        return job.run.status_file.read_bytes()
    except OSError:
        return None


def status_since(job: Job, before: bytes | None) -> tuple[str | None, str | None]:
    """State and reason that a run wrote after it was started; None where it wrote nothing.

    Times of files are not compared: they are the file server's, or another machine's.
    """
    if status_bytes(job) in (None, before):
        return None, None
    try:
        status = job.run.status()
    except KDError:
        return None, None
    return status.get("state"), status.get("reason")


def reason(job: Job, code: int, said: str | None) -> str:
    """Why a job failed, in a sentence: what its ranks or it said, what it printed last, what ended it."""
    if told := told_failure(job.directory):
        return told
    if said:
        return said
    if code < 0:
        name = signal.Signals(-code).name
        memory = ": by hand, or by the kernel when memory ran out" if name == "SIGKILL" else ""
        return f"killed by {name}{memory}"
    lines = job.log.read_text(errors="replace").strip().splitlines() if job.log.is_file() else []
    own = [line for line in lines if line.startswith("kd train: ")]
    last = (own or lines or ["nothing printed"])[-1]
    return last.removeprefix("kd train: ")
