"""Locks in folders that several machines share: processes of two hosts, on mounts that do not share ``flock``."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kd.errors import KDError
from kd.storage import locks

HOLDER = """
import sys, time
sys.argv[0] = "kd"  # spares the import of torch
from pathlib import Path
from kd.storage import locks
locks.LEASE, locks.TOUCH = map(float, sys.argv[2:4])
with locks.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[4]))
"""


def on_host(name: str | None) -> list[str]:
    """What starts a command on a host of that name: a UTS namespace of its own."""
    return ["unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$0" "$@"'] if name else []


CAN_BE_A_HOST = (
    shutil.which("unshare") and subprocess.run([*on_host("one"), "true"], capture_output=True).returncode == 0
)
needs_hosts = pytest.mark.skipif(not CAN_BE_A_HOST, reason="unshare --uts needs root on Linux")


@contextlib.contextmanager
def held(place: Path, host: str | None = None, lease: float = 1.5, seconds: float = 60):
    """Another process that holds the lock, on this host or another."""
    command = [*on_host(host), sys.executable, "-c", HOLDER, str(place), str(lease), str(lease / 5), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@pytest.fixture
def short(monkeypatch):
    """Leases that end soon."""
    monkeypatch.setattr(locks, "LEASE", 1.5)
    monkeypatch.setattr(locks, "TOUCH", 0.3)


def test_the_holder_of_a_lock_is_named_at_once(tmp_path):
    with held(tmp_path / "run", lease=60) as holder:
        begun = time.monotonic()
        with pytest.raises(KDError, match=rf"another process \({holder.pid} on {socket.gethostname()}\) is busy"):
            locks.lock_or_refuse(tmp_path / "run", "is busy")
        assert time.monotonic() - begun < 10


def test_a_killed_holder_is_no_holder(tmp_path):
    with held(tmp_path / "run", lease=60) as holder:
        holder.kill()
        holder.wait()
        begun = time.monotonic()
        with locks.lock_or_refuse(tmp_path / "run", "is busy"):
            assert time.monotonic() - begun < 10
    assert not list(tmp_path.iterdir()), "nothing stays behind"


@needs_hosts
def test_a_holder_on_another_host_is_noticed_while_it_runs_and_when_it_is_gone(tmp_path, short):
    with held(tmp_path / "run", "other") as holder:
        with pytest.raises(KDError, match=r"another process \(\d+ on other\) is busy"):
            locks.lock_or_refuse(tmp_path / "run", "is busy")
        holder.kill()  # its number says nothing here: a process of this host may have it too
        holder.wait()
        with locks.lock_or_refuse(tmp_path / "run", "is busy"):
            pass


def test_a_holder_that_was_stopped_too_long_is_ended(tmp_path, short):
    with held(tmp_path / "run", "other" if CAN_BE_A_HOST else None) as holder:
        holder.send_signal(signal.SIGSTOP)
        if not CAN_BE_A_HOST:
            pytest.skip("on one host a stopped process keeps its lock")
        with locks.lock(tmp_path / "run", timeout=20):
            holder.send_signal(signal.SIGCONT)
            assert holder.wait(20) == -signal.SIGTERM


@pytest.fixture
def mounts(tmp_path):
    """One folder as two machines see it, none of whose ``flock`` reaches the other, as NFS with ``nolock`` has it."""
    if not (shutil.which("bindfs") and CAN_BE_A_HOST):
        pytest.skip("needs bindfs and root: apt-get install bindfs")
    places = [tmp_path / name for name in ("server", "one", "two")]
    for place in places:
        place.mkdir()
    for place in places[1:]:
        subprocess.run(["bindfs", places[0], place], check=True)
    yield places[1:]
    for place in places[1:]:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_two_hosts_exclude_each_other_where_flock_does_not(mounts, short):
    import fcntl

    with contextlib.ExitStack() as stack:
        for mount in mounts:
            file = stack.enter_context((mount / "flock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # both have it: what kd must not rely on
        stack.enter_context(held(mounts[0] / "run", "one"))
        with pytest.raises(KDError, match=r"another process \(\d+ on one\) is busy"):
            locks.lock_or_refuse(mounts[1] / "run", "is busy")


@pytest.mark.long
def test_two_hosts_fine_tune_one_teacher_and_label_once(mounts, fresh_options):
    """Two sweeps' worth of processes on two hosts, with the same outputs: one builds, the other finds."""
    started = []
    for number, mount in enumerate(mounts):
        options = [*fresh_options, "student=dan", f"seed={number}", f"outputs={mount}/outputs"]
        place = f"hydra.run.dir={mount}/outputs/runs/{number}"
        command = [*on_host(mount.name), sys.executable, "-m", "kd", "train", *options, place]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    printed = [one.communicate(timeout=300)[0] for one in started]
    assert [one.returncode for one in started] == [0, 0], printed
    assert sum("fine-tuning" in text for text in printed) == 1
    assert sum("labelling 94 train rows" in text for text in printed) == 1
    checksums = {
        json.loads((mount / f"outputs/runs/{number}/environment.json").read_text())["teacher"]["checksum"]
        for number, mount in enumerate(mounts)
    }
    assert len(checksums) == 1
    left = [
        path.name for path in (mounts[0] / "outputs").rglob("*") if ".lease" in path.name or "building" in path.name
    ]
    assert left == []


def test_names_of_temporary_files_tell_hosts_apart():
    assert locks.mark() == f"{socket.gethostname()}-{os.getpid()}"
