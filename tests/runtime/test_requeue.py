"""A SLURM job requeues itself on a signal; a real SLURM does it in tests/end_to_end/test_slurm.py."""

import logging
import os
import signal

import pytest

from kd.runtime.requeue import requeue, requeue_on_signal, slurm_job
from tests.runtime.conftest import SRUN


@pytest.fixture
def scontrol(monkeypatch, tmp_path):
    """A command that writes down its arguments and has the exit code that a file names."""
    command = tmp_path / "scontrol"
    command.write_text(f"#!/bin/sh\necho $* > {tmp_path}/said\necho denied >&2\nexit $(cat {tmp_path}/code)\n")
    command.chmod(0o755)
    (tmp_path / "code").write_text("0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


@pytest.fixture
def default_handler():
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_job_is_named_as_scontrol_expects(monkeypatch):
    assert slurm_job() is None
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    assert slurm_job() == "7"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert slurm_job() == "5_2"
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert slurm_job() is None


def test_rank_0_requeues_on_the_signal_and_the_others_ignore_it(monkeypatch, scontrol, default_handler):
    requeue_on_signal()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, "outside of SLURM nothing changes"
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    requeue_on_signal()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    monkeypatch.setenv("SLURM_PROCID", "0")
    requeue_on_signal()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (scontrol / "said").read_text() == "requeue 7\n"


def test_a_handler_of_others_is_kept(monkeypatch, default_handler):
    for name, value in (SRUN | {"SLURM_PROCID": "0"}).items():
        monkeypatch.setenv(name, value)
    signal.signal(signal.SIGUSR1, signal.default_int_handler)
    requeue_on_signal()
    assert signal.getsignal(signal.SIGUSR1) == signal.default_int_handler


def test_a_refusal_of_slurm_is_logged(scontrol, caplog):
    with caplog.at_level(logging.WARNING):
        requeue("7")
        (scontrol / "code").write_text("1")
        requeue("7")
    assert caplog.messages == [
        "requeued job 7: it will resume from the end of its last epoch",
        "SLURM does not requeue job 7: denied",
    ]
