"""The loop of a sweep with a queue that runs nothing, and how the end of a job is read from its directory."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from omegaconf import OmegaConf

from kd.errors import KDError
from kd.runtime.ranks import write_failure
from kd.sweep.interrupts import Interrupts
from kd.sweep.jobs import Job
from kd.sweep.progress import Progress
from kd.sweep.queue import Ended, Queue, Started
from kd.sweep.slots import Slot
from kd.sweep.sweep import OPENED, Sweep, failure, status_bytes, status_since
from tests.sweep.conftest import job_at


class Planned(Queue):
    """Ends each job with the exit code that a plan has for it, or when it is stopped."""

    def __init__(self, codes: dict[int, int | None]) -> None:
        self.codes, self.unread, self.calls = codes, [], []

    def start(self, job, arguments, log, environment, threads) -> None:
        self.calls.append(("start", job))
        self.unread.append(Started(job))
        if (code := self.codes[job]) is not None:
            self.unread.append(Ended(job, code))

    def stop(self, job, number) -> None:
        self.calls.append(("stop", job, number))
        self.unread.append(Ended(job, -number))

    def wait(self, timeout) -> None:
        pass

    def events(self) -> Iterator[Started | Ended]:
        found, self.unread = self.unread, []
        yield from found

    def kill(self) -> None:
        self.calls.append(("kill",))

    def close(self) -> None:
        self.calls.append(("close",))


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of two slots; its jobs need no composed configuration."""
    monkeypatch.setattr(Job, "arguments", lambda *_: [])
    made = Sweep(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}), None, ["kd"], [], None, 0.001)
    made.slots = [Slot((), 1)] * 2
    yield made
    made.close()
    OPENED.remove(made)


def run(sweep: Sweep, queue: Queue, jobs: list[Job]) -> None:
    sweep.record.jobs += jobs
    with Progress(jobs, sweep.place, 2) as progress, Interrupts() as interrupts:
        sweep._run(queue, jobs, progress, interrupts)


def test_every_job_ends_with_a_state_and_a_reason(sweep, tmp_path):
    """One writes that it is done, one ends without a word, one hangs, one prints why it failed."""
    jobs = [job_at(tmp_path, number) for number in range(4)]
    queue = Planned({0: 0, 1: -signal.SIGKILL, 2: None, 3: 2})
    start = queue.start

    def starting(job, *arguments) -> None:
        if job == 0:
            jobs[0].run.set_status("done", identity="identity-0")
        if job == 3:
            jobs[3].log.write_text("loading\nkd train: seed: expected a number\nbye\n")
        start(job, *arguments)

    queue.start = starting
    run(sweep, queue, jobs)
    assert [job.state for job in jobs] == ["done", "failed", "failed", "failed"]
    assert [job.reason for job in jobs[1:]] == [
        "killed by SIGKILL: by hand, or by the kernel when memory ran out",
        "did not end within hydra.launcher.timeout_min=0.001",
        "seed: expected a number",
    ]
    assert ("stop", 2, signal.SIGKILL) in queue.calls and jobs[1].run.status()["state"] == "failed"
    with pytest.raises(KDError, match="3 of 4 jobs failed; the first, run-1: killed by SIGKILL"):
        sweep.refuse_failures()


@pytest.mark.parametrize(
    ("slot", "devices", "expected"),
    [(Slot((), 16), 2, ({}, 8)), (Slot(("0", "1"), 1), 2, ({"CUDA_VISIBLE_DEVICES": "0,1"}, 1))],
)
def test_a_job_gets_the_gpus_of_its_slot_and_each_rank_its_threads(sweep, tmp_path, slot, devices, expected):
    job, queue, given = job_at(tmp_path, 0), Planned({0: 0}), []
    job.config.trainer.devices, sweep.slots = devices, [slot]
    start = queue.start

    def starting(number, arguments, log, *resources) -> None:
        given.append(resources)
        start(number, arguments, log, *resources)

    queue.start = starting
    run(sweep, queue, [job])
    assert given == [expected]


def test_an_interrupted_sweep_stops_what_runs_and_keeps_the_rest_waiting(sweep, tmp_path):
    jobs = [job_at(tmp_path, number) for number in range(3)]
    queue = Planned({0: None, 1: None, 2: None})
    first = queue.events

    def events():
        yield from [event for event in first() if event != Started(1)]  # the second waits for its place
        if ("stop", 0, signal.SIGINT) not in queue.calls:
            raise KeyboardInterrupt

    queue.events = events
    with pytest.raises(KeyboardInterrupt):
        run(sweep, queue, jobs)
    assert [job.state for job in jobs] == ["failed", "waiting", "waiting"]
    assert jobs[0].reason == "the sweep was interrupted (KeyboardInterrupt)" and jobs[1].attempts == 0


@pytest.mark.parametrize("setting", [{"slots": 0}, {"slots": True}, {"timeout_min": -1}])
def test_settings_outside_their_range_are_refused(tmp_path, setting):
    with pytest.raises(KDError, match=f"hydra.launcher.{next(iter(setting))}: expected"):
        Sweep(OmegaConf.create(), None, [], [], **{"slots": None, "timeout_min": None, **setting})


def test_a_status_that_was_there_before_the_start_says_nothing(tmp_path):
    job = job_at(tmp_path, 0)
    job.directory.mkdir()
    assert status_bytes(job) is None and status_since(job, None) == (None, None)
    job.run.set_status("failed", reason="before")
    before = status_bytes(job)
    assert status_since(job, before) == (None, None)
    job.run.set_status("pruned", reason="now")
    assert status_since(job, before) == ("pruned", "now")


def test_the_reason_of_a_rank_comes_before_all_others(tmp_path):
    job = job_at(tmp_path, 0)
    job.directory.mkdir()
    assert failure(job, 1, None) == "nothing printed" and failure(job, 1, "written") == "written"
    write_failure(job.directory, 1, "RuntimeError: broken")
    assert failure(job, 1, "written") == "rank 1: RuntimeError: broken"


def test_the_sweep_itself_needs_no_torch():
    """Its process only composes and waits, so a finished sweep ends after a second."""
    code = "import sys; sys.argv = ['kd']; import kd.commands.train; print({'torch', 'optuna'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
