"""The fork server without a sweep; its jobs are held by test_client.py and tests/end_to_end/test_sweep.py."""

import os
import signal
import socket
import subprocess
import sys
import time

from kd.sweep import server


def test_looks_at_the_jobs_do_not_overlap(monkeypatch):
    """A look may take longer than the time between two looks, because a large job frees its memory slowly."""
    ours, theirs = socket.socketpair()
    served, inside, times = server.Server(theirs, lambda _: 0), [], []

    def slowly() -> None:
        assert not inside, "a look started within another"
        inside.append(True)
        deadline = time.monotonic() + 0.1
        while time.monotonic() < deadline:
            time.sleep(0.001)
        times.append(inside.pop())

    monkeypatch.setattr(server, "POLL", 0.02)
    monkeypatch.setattr(served, "reap", slowly)
    with served.polling():
        deadline = time.monotonic() + 5
        while len(times) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    ours.close()
    assert len(times) >= 3


def test_a_function_is_named_by_module_and_name():
    assert server.load("os.path:basename")("a/b") == "b"


def test_a_process_group_is_killed_as_a_whole():
    """The shell and the process that it started; none of them runs afterwards."""
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True)
    deadline = time.monotonic() + 10
    while len(server.running(server.GROUP, shell.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert shell.pid in server.running(server.PARENT, os.getpid())
    server.end_group(shell.pid)
    assert server.running(server.GROUP, shell.pid) == [] and shell.wait() == -signal.SIGKILL


def test_the_output_of_a_job_goes_to_its_log(tmp_path):
    log = tmp_path / "run" / "job.log"
    code = "import os, sys; sys.argv[0] = 'kd'; from kd.sweep.server import redirect; redirect(sys.argv[1]); "
    code += "print('one'); os.system('echo two'); assert not sys.stdin.read()"
    subprocess.run([sys.executable, "-c", code, str(log)], check=True, stdin=subprocess.PIPE)
    assert log.read_text() == "one\ntwo\n"
