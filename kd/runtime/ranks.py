"""The processes of one run: who this one is, how they meet, and what it leaves when it fails.

Rank 0 is the run: it locks the directory, writes it, prepares the teacher, and measures the student; the others train
and end. On one machine rank 0 starts them itself, through Lightning, when training begins. Over several, ``torchrun``
or ``srun`` starts ``kd train`` once for each device: the ranks meet, rank 0 says where it trains, and the others wait
for its word, however long it fine-tunes a teacher (`kd.runtime.launch`). Needs no torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from kd.errors import KDError
from kd.runtime.launch import Launch, Meeting

STARTED_BY_KD = "KD_RANKS_OF"
"""Set by rank 0 before it trains; the ranks that it starts find it."""

OF_RANKS = (
    *("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"),
    *("PL_GLOBAL_SEED", STARTED_BY_KD),
)
"""What a run's processes find in their environment, and the next run's must not."""

QUIET = ("hydra/job_logging=stdout", "hydra.job_logging.root.level=WARNING")
"""Hydra's options for a rank other than 0: it writes no log, and says what is wrong only."""

PR_SET_PDEATHSIG = 1


MEETING: Meeting | None = None
"""That of this process, where torchrun or srun started it."""


@contextlib.contextmanager
def met(arguments: list[str]) -> Iterator[list[str]]:
    """Meet the other ranks of a launch from outside, where there are any.

    Args:
        arguments: of ``kd train``.

    Yields:
        the arguments of this rank: those of a rank other than 0 train where rank 0 does, and leave nothing there.

    Raises:
        KDError: a sweep, whose jobs start their ranks themselves; or rank 0 failed.
    """
    global MEETING
    launch = Launch.found()
    if launch is None or launch.size == 1:
        if launch:
            forget_ranks()  # kd starts those of this process
        yield [*arguments, *QUIET] if started_by_kd() else arguments
        return
    if {"-m", "--multirun"} & set(arguments):
        raise KDError(
            f"expected one process for a sweep, found {launch.size} that {launch.by} started; start kd train -m once, "
            "its jobs start their ranks themselves"
        )
    MEETING = meeting = Meeting(launch)
    reason = "it had nothing to train"
    try:
        if launch.rank:
            place = meeting.hear()["place"].replace("\\", "\\\\").replace("'", "\\'")
            yield [*arguments, f"hydra.run.dir='{place}'", "hydra.output_subdir=null", *QUIET]
        else:
            yield arguments
    except BaseException as error:
        reason = str(error) or type(error).__name__
        raise
    finally:
        MEETING = None
        if launch.rank == 0 and meeting.said < 2:  # the others still wait for a word
            meeting.fail(reason)


def default_name() -> str | None:
    """What a run's directory is called where none is given, so that a restarted run finds it; None: by the time."""
    launch = Launch.found()
    return f"{launch.by}-{launch.name}" if launch and launch.name else None


def started_by_kd() -> bool:
    """Whether this is a rank that rank 0 started."""
    return STARTED_BY_KD in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def is_first() -> bool:
    """Whether this process is rank 0, whoever started it."""
    launch = Launch.found()
    return not started_by_kd() and (launch is None or launch.rank == 0)


def rank() -> int:
    """The number of this process among those of its run, 0 for the one that is the run.

    Raises:
        KDError: several processes that neither kd, torchrun nor srun started.
    """
    if MEETING:
        return MEETING.launch.rank
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number and not started_by_kd():
        raise KDError(
            "expected one process a run, found LOCAL_RANK set by another launcher; start kd train once and set "
            "trainer.devices, it starts its ranks itself, or use torchrun or srun"
        )
    return number


def require_size(devices: int, nodes: int) -> None:
    """Refuse a launch that is not of the size which the Trainer expects.

    Args:
        devices: ``trainer.devices``.
        nodes: ``trainer.num_nodes``.
    """
    launch = MEETING.launch if MEETING else None
    if launch and launch.size != devices * nodes:
        raise KDError(
            f"{launch.by} started {launch.size} processes, and trainer.devices={devices} on trainer.num_nodes={nodes} "
            f"are {devices * nodes}; set them as {launch.by} has them"
        )
    if launch is None and nodes > 1:
        raise KDError(
            f"trainer.num_nodes={nodes} wants kd train started on every node, a process for each device; use torchrun "
            "or srun, as in docs/clusters.md"
        )


def say_place(run: Path) -> None:
    """Rank 0: where the others will train."""
    if MEETING and MEETING.said == 0:
        MEETING.say(place=str(run.absolute()))


def say_ready(train: bool = True) -> None:
    """Rank 0: the teacher has answered and training begins, or (``train=False``) there is nothing to train."""
    if MEETING and MEETING.said == 1:
        MEETING.say(train=train)


def hear_ready() -> bool:
    """The others: wait for `say_ready`; whether there is something to train."""
    return MEETING.hear()["train"] if MEETING else True


@contextlib.contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables that hold for a while; None: that are not set for a while."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def alone() -> contextlib.AbstractContextManager[None]:
    """Hide the other ranks from a Trainer of rank 0 that trains something by itself."""
    return environment(dict.fromkeys(OF_RANKS))


def announce(run: Path) -> None:
    """Say to the ranks that this process starts whose they are."""
    os.environ[STARTED_BY_KD] = str(run)


def forget_ranks() -> None:
    """After training: what Lightning leaves in the environment would make a later Trainer wait for ranks."""
    _set(dict.fromkeys(OF_RANKS))


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
