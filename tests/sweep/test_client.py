"""A fork server as the sweep uses it; see also test_server.py."""

import signal
import time

import pytest

from kd.errors import KDError
from kd.sweep.client import ForkServer
from kd.sweep.queue import Ended, Started
from kd.sweep.server import GROUP, running


def test_jobs_end_and_are_stopped_during_a_long_warm_call(tmp_path):
    """The end of a job is reported meanwhile, a waiting job is not started, and the sweep may end."""
    server = ForkServer("tests.sweep.conftest:wait", [], tmp_path / "server.log")
    events, deadline = [], time.monotonic() + 30
    for job in (1, 2):
        server.start(job, [], tmp_path / f"{job}.log", {}, 1)
    server.warm("tests.sweep.conftest:wait", {})
    server.start(3, [], tmp_path / "3.log", {}, 1)
    server.stop(1, signal.SIGKILL)
    while not any(isinstance(event, Ended) for event in events):
        assert time.monotonic() < deadline, events
        server.wait(1.0)
        events += server.events()
    assert [event for event in events if isinstance(event, Ended)] == [Ended(1, -signal.SIGKILL)]
    assert set(server.groups) == {2}, "the third has not started"
    other = server.groups[2]
    server.connection.close()
    assert server.process.wait(timeout=10) == 0
    assert not running(GROUP, other)


def test_a_job_that_is_stopped_during_a_warm_call_never_starts(tmp_path):
    client = ForkServer("tests.sweep.conftest:wait", [], tmp_path / "server.log")
    client.start(1, [], tmp_path / "1.log", {}, 1)
    client.warm("time:sleep", 2.0)
    for job in (2, 3):
        client.start(job, [], tmp_path / f"{job}.log", {}, 1)
    client.stop(2, signal.SIGKILL)
    started = set()
    while not started & {2, 3}:
        client.wait(30.0)
        started |= {event.job for event in client.events() if isinstance(event, Started)}
    client.close()
    assert started == {1, 3}


def test_the_end_of_the_server_is_an_error_with_its_last_line(tmp_path):
    client = ForkServer("no.such.module:main", [], tmp_path / "server.log")
    client.wait(60.0)
    with pytest.raises(
        KDError, match=r"ended with code 1: ModuleNotFoundError: No module named 'no'; see '.*server\.log'"
    ):
        list(client.events())
