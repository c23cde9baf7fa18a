"""Signals raise where they may, and nowhere else."""

import os
import signal

import pytest

from kd.sweep.interrupts import Interrupts


def test_a_signal_raises_where_the_sweep_waits():
    """Not while it writes down the end of a job, of which half would be lost."""
    with pytest.raises(SystemExit) as ended, Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        with interrupts.allowed():
            pytest.fail("it waits")
    assert ended.value.code == 128 + signal.SIGTERM
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts, interrupts.allowed():
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupts():
        os.kill(os.getpid(), signal.SIGINT)


def test_the_first_signal_names_the_cause_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit), Interrupts() as interrupts:
        assert interrupts.cause(RuntimeError()) == "RuntimeError"
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.cause(KeyboardInterrupt()) == "SIGTERM"
    assert interrupts.received == [signal.SIGTERM, signal.SIGINT] and signal.getsignal(signal.SIGTERM) == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts, interrupts.allowed():
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.received == []
    finally:
        signal.signal(signal.SIGHUP, before)
