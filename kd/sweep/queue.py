"""The interface of what starts a sweep's jobs: the fork server of this machine, SLURM's queue, or a Ray cluster."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kd.sweep.jobs import Job


@dataclass(frozen=True)
class Started:
    """An event: the job with this number runs now."""

    job: int


@dataclass(frozen=True)
class Ended:
    """An event: the job with this number has ended."""

    job: int
    code: int  # the exit code; the negative signal number if a signal killed the job
    reason: str | None = None  # why, if the job could not write it down itself


class Queue(Protocol):
    """Starts jobs and reports their starts and ends."""

    @abstractmethod
    def start(self, job: int, arguments: list[str], log: Path, environment: Mapping[str, str], threads: int) -> None:
        """Start the job with this number: ``kd`` with these arguments.

        Its output goes to ``log``; it gets the additional environment, and each of its ranks this number of threads.
        """

    def warm(self, function: str, argument: dict[str, Any]) -> None:
        """Call ``module:function`` where jobs are forked, so that later jobs find its results in memory.

        By default nothing is called: where each job is a new process, it reads its files itself.
        """

    @abstractmethod
    def stop(self, job: int, number: int) -> None:
        """Send a signal to a job; SIGKILL also kills all processes that it started.

        A job that was not started yet is dropped. A queue of another machine ends the job whatever the signal is.
        """

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Wait for an event, at most ``timeout`` seconds."""

    @abstractmethod
    def events(self) -> Iterator[Started | Ended]:
        """Yield the events since the last call."""

    def kill(self) -> None:
        """End everything at once, when no job runs yet; by default as `close` does."""
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End everything that still runs, and release the queue."""


MakeQueue = Callable[[Path, Sequence[Job]], Queue]
"""(the sweep's directory, its jobs, a list that grows) -> a queue for them."""
