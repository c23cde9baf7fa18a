"""The processes (ranks) of one run: the rank of this process, messages between ranks, and reasons of failures.

Rank 0 locks and writes the run directory, prepares the teacher and measures the student; the other ranks only train.
On one machine rank 0 starts the others itself, through Lightning, when training begins. On several machines
``torchrun`` or ``srun`` starts ``kd train`` for each device: rank 0 sends the others the run directory, and they wait
until it has prepared the teacher, however long that takes (`kd.runtime.launch`). Needs no torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

from kd.errors import KDError
from kd.runtime.launch import Launch, Rendezvous, quoted

STARTED_BY_KD = "KD_RANKS_OF"
"""Variable that rank 0 sets before it trains, so that the ranks that it starts recognise it."""

OF_RANKS = (
    *("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"),
    *("PL_GLOBAL_SEED", STARTED_BY_KD),
)
"""Variables of a run's ranks, which must not be left for the next run."""

QUIET = ("hydra/job_logging=stdout", "hydra.job_logging.root.level=WARNING")
"""Hydra's options for ranks other than 0: they write no log file and print warnings only."""

PR_SET_PDEATHSIG = 1

RENDEZVOUS: Rendezvous | None = None
"""That of this process, within `rendezvous`; None if neither torchrun nor srun started several ranks."""


@contextlib.contextmanager
def rendezvous(arguments: list[str]) -> Iterator[list[str]]:
    """Connect this process with the other ranks that torchrun or srun started, if there are any.

    Yields:
        these arguments of ``kd train`` for this rank. Ranks other than 0 get the run directory of rank 0 and write
        nothing there.

    Raises:
        KDError: the command is a sweep, whose jobs start their ranks themselves; or rank 0 has failed.
    """
    global RENDEZVOUS
    launch = Launch.found()
    if launch is None or launch.size == 1:
        if launch:
            forget_ranks()  # kd starts the other ranks itself
        yield [*arguments, *QUIET] if started_by_kd() else arguments
        return
    if {"-m", "--multirun"} & set(arguments):
        raise KDError(
            f"expected one process for a sweep, found {launch.size} that {launch.by} started; start kd train -m "
            f"without {launch.by}, its jobs start their ranks themselves"
        )
    RENDEZVOUS = opened = Rendezvous(launch)
    reason = "it had nothing to train"
    try:
        if launch.rank:
            place = quoted(opened.receive("place"))
            yield [*arguments, f"hydra.run.dir={place}", "hydra.output_subdir=null", *QUIET]
        else:
            yield arguments
    except BaseException as error:
        reason = str(error) or type(error).__name__
        raise
    finally:
        RENDEZVOUS = None
        if launch.rank == 0:
            opened.fail(reason)


def default_name() -> str | None:
    """Return a name for the run directory that is the same after a restart; None: it is named after the time."""
    launch = Launch.found()
    return f"{launch.by}-{launch.name}" if launch and launch.name else None


def started_by_kd() -> bool:
    """Return whether rank 0 started this process."""
    return STARTED_BY_KD in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def is_first() -> bool:
    """Return whether this process is rank 0."""
    launch = Launch.found()
    return not started_by_kd() and (launch is None or launch.rank == 0)


def rank() -> int:
    """Return the number of this process among those of its run.

    Raises:
        KDError: it was started as a rank, but not by kd, torchrun or srun.
    """
    if RENDEZVOUS:
        return RENDEZVOUS.launch.rank
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number and not started_by_kd():
        raise KDError(
            "expected one process a run, found LOCAL_RANK set by another launcher; start one kd train and set "
            "trainer.devices (it starts its ranks itself), or use torchrun or srun"
        )
    return number


def require_size(devices: int, nodes: int) -> None:
    """Refuse a launch whose number of processes is not ``trainer.devices`` on each of ``trainer.num_nodes`` nodes.

    Raises:
        KDError: the numbers differ, or there are several nodes and no launch.
    """
    launch = RENDEZVOUS.launch if RENDEZVOUS else None
    if launch and launch.size != devices * nodes:
        raise KDError(
            f"expected {devices * nodes} processes for trainer.devices={devices} on trainer.num_nodes={nodes}, found "
            f"{launch.size} that {launch.by} started; change one of the two"
        )
    if launch is None and nodes > 1:
        raise KDError(
            f"trainer.num_nodes={nodes} needs kd train started on every node, one process for each device; use "
            "torchrun or srun, as in docs/clusters.md"
        )


def send_place(run: Path) -> None:
    """Send the run directory from rank 0 to the others."""
    if RENDEZVOUS:
        RENDEZVOUS.send("place", str(run.absolute()))


def send_ready(train: bool = True) -> None:
    """Send from rank 0 that training begins, or (``train=False``) that there is nothing to train."""
    if RENDEZVOUS:
        RENDEZVOUS.send("train", train)


def receive_ready() -> bool:
    """Wait in another rank for `send_ready`, and return whether there is something to train."""
    return bool(RENDEZVOUS.receive("train")) if RENDEZVOUS else True


@contextlib.contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables within a context; None removes one."""
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
    """Hide the other ranks from a Trainer with which rank 0 trains something by itself, such as a teacher."""
    return environment(dict.fromkeys(OF_RANKS))


def forget_ranks() -> None:
    """Remove the variables of ranks after training; Lightning leaves them, and a later Trainer would wait for ranks."""
    _set(dict.fromkeys(OF_RANKS))


def die_with_parent(parent: int | None = None) -> None:
    """Make the kernel kill this process when its parent ends, for whatever reason (Linux only).

    Args:
        parent: the parent's process id, if the parent may have ended already.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid() if parent is None else parent
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call above
        os.kill(os.getpid(), signal.SIGKILL)


def outlive_parent() -> None:
    """Undo `die_with_parent`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)


def write_failure(run: Path, rank: int, reason: str) -> None:
    """Write down why a rank failed, for the other ranks and for the sweep."""
    _write(run, rank, f"rank {rank}: {reason}")


def _write(run: Path, rank: int, sentence: str) -> None:
    temporary = run / f".rank-{rank}.{os.getpid()}"
    temporary.write_text(sentence)
    os.replace(temporary, run / f"rank-{rank}.failed")


def read_failure(run: Path, wait: float = 0.0) -> str | None:
    """Return why another rank failed, None if none did. Wait up to ``wait`` seconds for a rank that is just failing."""
    deadline = time.monotonic() + wait
    while True:
        for place in sorted(run.glob("rank-*.failed")):
            return place.read_text()
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.05)


GRACE = 20.0
"""Seconds in which rank 0 can end by itself after another rank has failed."""
WAIT = 2.0
"""Seconds for which a rank that has failed waits for the reason of another."""


@contextlib.contextmanager
def observed() -> Iterator[None]:
    """Write down which of the ranks that Lightning starts was killed, and by what signal.

    Lightning's own observer kills rank 0 within five seconds, so that nobody learns the reason.
    """
    from lightning.pytorch.strategies.launchers import subprocess_script

    ended = threading.Event()

    def observe(started: list[subprocess.Popen]) -> None:
        Observer(started, Path(os.environ[STARTED_BY_KD]), ended).start()

    with mock.patch.object(subprocess_script, "_launch_process_observer", observe):
        try:
            yield
        finally:
            ended.set()


class Observer(threading.Thread):
    """Wait for ranks that rank 0 has started, until all have ended well or one has failed.

    Args:
        started: the processes of the ranks 1, 2, ...
        directory: of the run.
        ended: set when rank 0 no longer trains, for whatever reason.
    """

    def __init__(self, started: Sequence[subprocess.Popen], directory: Path, ended: threading.Event) -> None:
        super().__init__(daemon=True, name="observer of ranks")
        self.started, self.directory, self.ended = started, directory, ended

    def run(self) -> None:
        deadline, failed = math.inf, dict[int, int]()
        while not failed and time.monotonic() < deadline:
            codes = [process.poll() for process in self.started]
            failed = {number: code for number, code in enumerate(codes, start=1) if code}
            if self.ended.is_set():  # perhaps because a rank was killed, which the kernel may report a little later
                deadline = min(deadline, time.monotonic() + WAIT)
            time.sleep(0.1)
        for number, code in failed.items():
            if code < 0:
                _write(self.directory, number, f"rank {number} was killed (signal {-code})")
        if not failed or self.ended.wait(GRACE):
            return
        for process in self.started:
            process.kill()
        # A rank that waits for the failed one for ever is killed, as Lightning would do.
        reason = read_failure(self.directory) or f"rank {min(failed)} ended with code {failed[min(failed)]}"
        print(f"kd train: {reason}; repeat the command to resume", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


def begin(run: Path) -> None:
    """Remove the failures of an earlier start; set the variable by which ranks see that this process started them."""
    for place in run.glob("rank-*.failed"):
        place.unlink()
    os.environ[STARTED_BY_KD] = str(run)
