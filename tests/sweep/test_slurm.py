"""SLURM's queue with commands that only pretend; a real SLURM runs in tests/end_to_end/test_slurm.py."""

import os
import sys
import types

import pytest

from kd.errors import KDError
from kd.sweep import slurm
from kd.sweep.queue import Ended, Started
from tests.sweep.conftest import job_at


@pytest.fixture
def queue(monkeypatch, tmp_path):
    """A queue whose squeue prints a file, and whose scancel writes down its arguments."""
    for name, line in (("squeue", f"cat {tmp_path}/states"), ("scancel", f"echo $* >> {tmp_path}/cancelled")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(sys.modules, "submitit", types.ModuleType("submitit"))
    jobs = [job_at(tmp_path, number) for number in range(3)]
    made = slurm.SlurmQueue(tmp_path, jobs)
    for job in jobs:
        job.directory.mkdir()
        (job.directory / slurm.NUMBER).write_text(f"7_{job.number}")
        made.start(job.number, [], job.log, {}, 1)
    return made


def states(queue: slurm.SlurmQueue, *found: str) -> list:
    """What the queue reports when SLURM has these states."""
    (queue.place / "states").write_text("".join(f"7_{number} {state}\n" for number, state in enumerate(found)))
    queue.wait(0.0)
    return list(queue.events())


def test_jobs_that_an_earlier_command_submitted_are_followed_to_their_ends(queue):
    assert states(queue, "RUNNING", "PENDING", "PENDING") == [Started(0)]
    assert states(queue, "COMPLETED", "RUNNING", "PENDING") == [Ended(0, 0), Started(1)]
    assert states(queue, "COMPLETED", "TIMEOUT") == [
        Ended(1, 1, "SLURM's job 7_1: TIMEOUT"),
        Ended(2, 1, "SLURM's job 7_2: gone from the queue"),
    ]


def test_stopped_jobs_are_cancelled_together(queue):
    states(queue, "RUNNING", "RUNNING", "PENDING")
    queue.stop(0, 9)
    queue.stop(2, 9)
    states(queue, "RUNNING", "RUNNING", "PENDING")
    queue.close()
    assert (queue.place / "cancelled").read_text() == "7_0 7_2\n7_0 7_1 7_2\n"


def test_a_silent_controller_ends_no_job(queue):
    states(queue, "RUNNING", "RUNNING", "PENDING")
    (queue.place / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert slurm.queued() is None and states(queue) == []


def test_without_submitit_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(KDError, match=r"needs submitit; pip install 'kd\[slurm\]'"):
        slurm.SlurmQueue(tmp_path, [])
