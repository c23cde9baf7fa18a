"""Which rank this process is, its environment, and the reasons of failed ranks."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from kd.errors import KDError
from kd.runtime import ranks
from kd.sweep.server import PARENT, running
from tests.runtime.conftest import SRUN, TORCHRUN


def test_a_launch_of_one_process_is_no_launch(monkeypatch):
    for name, value in (SRUN | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}).items():
        monkeypatch.setenv(name, value)
    with ranks.rendezvous(["student=dan"]) as arguments:
        assert arguments == ["student=dan"] and ranks.rank() == 0
    assert "SLURM_NTASKS" not in os.environ, "Lightning would wait for ranks that kd starts"


def test_sizes_that_do_not_agree_are_refused(monkeypatch):
    with pytest.raises(KDError, match="needs kd train started on every node"):
        ranks.require_size(1, 2)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(KDError, match="expected one process for a sweep, found 4 that torchrun started"),
        ranks.rendezvous(["-m"]),
    ):
        pass


def test_a_process_that_kd_started_is_quiet_and_not_the_first(monkeypatch):
    assert ranks.is_first() and ranks.rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(KDError, match="found LOCAL_RANK set by another launcher"):
        ranks.rank()
    monkeypatch.setenv(ranks.STARTED_BY_KD, "run")
    assert ranks.rank() == 1 and not ranks.is_first()
    with ranks.rendezvous(["student=dan"]) as arguments:
        assert arguments == ["student=dan", *ranks.QUIET]
    ranks.send_ready()
    assert ranks.receive_ready(), "without a launch there is nothing to wait for"


def test_environment_variables_hold_within_a_context(monkeypatch):
    monkeypatch.setenv("KD_ONE", "before")
    with ranks.environment({"KD_ONE": None, "KD_OTHER": "within"}):
        assert "KD_ONE" not in os.environ and os.environ["KD_OTHER"] == "within"
    assert os.environ["KD_ONE"] == "before" and "KD_OTHER" not in os.environ


def test_variables_of_ranks_are_hidden_and_removed(monkeypatch, tmp_path):
    for name in ranks.OF_RANKS:
        monkeypatch.setenv(name, "1")
    with ranks.alone():
        assert not set(ranks.OF_RANKS) & set(os.environ)
    ranks.begin(tmp_path)
    assert os.environ[ranks.STARTED_BY_KD] == str(tmp_path) and os.environ["WORLD_SIZE"] == "1"
    ranks.forget_ranks()
    assert not set(ranks.OF_RANKS) & set(os.environ)


def test_the_reason_of_a_failed_rank_is_read_until_the_next_start(monkeypatch, tmp_path):
    monkeypatch.setenv(ranks.STARTED_BY_KD, "before")
    assert ranks.read_failure(tmp_path) is None
    ranks.write_failure(tmp_path, 3, "RuntimeError: broken")
    assert ranks.read_failure(tmp_path, wait=5.0) == "rank 3: RuntimeError: broken"
    ranks.begin(tmp_path)
    assert ranks.read_failure(tmp_path) is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "rank 2 was killed (signal 9)"),
        ("import sys; sys.exit(1)", None),  # it has written its own reason
        ("", None),
    ],
)
def test_the_observer_names_the_rank_that_was_killed(code, reason, tmp_path):
    started = [subprocess.Popen([sys.executable, "-c", each]) for each in ("import time; time.sleep(60)", code)]
    ended = threading.Event()
    observer = ranks.Observer(started, tmp_path, ended)
    observer.start()
    started[1].wait()
    ended.set()
    observer.join(timeout=30)
    assert not observer.is_alive() and ranks.read_failure(tmp_path) == reason
    started[0].kill()
    started[0].wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_a_process_ends_with_its_parent():
    """The parent starts a child, which prints its id, and is killed."""
    child = (
        "import os, time; from kd.runtime.ranks import die_with_parent as die; die(); print(os.getpid(), flush=True)"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', \"import sys; sys.argv = ['kd']; {child}; "
    code += 'time.sleep(60)"])'
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while pid in running(PARENT, 1) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pid not in running(PARENT, 1)
