"""The processes of one run under DDP: who this one is, and what it leaves when it fails.

Rank 0 is the run: it locks the directory, writes it, prepares the teacher, and measures the student. It starts the
other ranks itself, through Lightning, when training begins; they train and end. Needs no torch.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from kd.errors import KDError

STARTED_BY_KD = "KD_RANKS_OF"
"""Set by rank 0 before it trains; the ranks that it starts find it."""

OF_RANKS = (
    *("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("PL_GLOBAL_SEED", STARTED_BY_KD),
)
"""What a run's processes find in their environment, and the next run's must not."""

PR_SET_PDEATHSIG = 1


def rank() -> int:
    """The number of this process among those of its run, 0 for the one that started it.

    Raises:
        KDError: several processes that kd did not start.
    """
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number and STARTED_BY_KD not in os.environ:
        raise KDError(
            "expected one process a run, found LOCAL_RANK set by another launcher; start kd train once and set "
            "trainer.devices, it starts its ranks itself"
        )
    return number


def announce(run: Path) -> None:
    """Say to the ranks that this process starts whose they are."""
    os.environ[STARTED_BY_KD] = str(run)


def forget_ranks() -> None:
    """After training: what Lightning leaves in the environment would make a later Trainer wait for ranks."""
    for name in OF_RANKS:
        os.environ.pop(name, None)


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent is gone, however that ended (Linux only).

    Args:
        parent: its process id, where it may be gone already.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid() if parent is None else parent
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # gone before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def outlive_parent() -> None:
    """Take `die_with_parent` back."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)


def tell_failure(run: Path, rank: int, reason: str) -> None:
    """Leave why a rank failed where the others, and who started them, find it."""
    temporary = run / f".rank-{rank}"
    temporary.write_text(reason)
    os.replace(temporary, run / f"rank-{rank}.failed")


def told_failure(run: Path, wait: float = 0.0) -> str | None:
    """Why another rank failed, as a phrase; None if none did.

    Args:
        wait: seconds to give a rank that is about to say it.
    """
    deadline = time.monotonic() + wait
    while True:
        for place in sorted(run.glob("rank-*.failed")):
            return f"rank {place.stem.split('-')[1]}: {place.read_text()}"
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.05)


def forget_failures(run: Path) -> None:
    """Before a new start."""
    for place in run.glob("rank-*.failed"):
        place.unlink()
