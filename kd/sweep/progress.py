"""The progress of a sweep: a live view on a terminal, otherwise a line for each event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kd.sweep.jobs import Job
from kd.sweep.record import score

SHOWN = 8


class Progress:
    """Shows how many jobs are done, running and failed, the best accuracy, and the time left.

    Args:
        jobs: the command's jobs, a list that grows.
        root: the sweep's directory.
        slots: how many jobs run at the same time.
    """

    def __init__(self, jobs: Sequence[Job], root: Path, slots: int) -> None:
        self.jobs, self.root, self.slots = jobs, root, slots
        self.console = Console()
        self.since: dict[int, float] = {}
        self.best: float | None = None
        self.live: Live | None = None
        for job in jobs:
            self._note(job)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live = Live(self, console=self.console, refresh_per_second=2, transient=True)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def started(self, job: Job) -> None:
        self.since[job.number] = time.monotonic()
        if not self.live:
            self._print(f"start  {job.name(self.root)}")

    def ended(self, job: Job) -> None:
        self.since.pop(job.number, None)
        self._note(job)
        tail = f": {job.reason}" if job.reason else ""
        self._print(f"{job.state:6} {job.name(self.root)} in {job.seconds:.1f} s{tail} | {self.summary()}")

    def summary(self) -> str:
        own = list({job.identity: job for job in reversed(self.jobs)}.values())  # the first of each run
        count = {state: sum(job.state == state for job in own) for state in ("done", "running", "failed", "pruned")}
        words = [f"{number} {state}" for state, number in count.items() if number or state == "done"]
        words[0] += f" of {len(own)}"
        if self.best is not None:
            words.append(f"best {100 * self.best:.1f} % on validation")
        if (left := self.seconds_left(own)) is not None:
            words.append(f"about {duration(left)} left")
        return ", ".join(words)

    def seconds_left(self, jobs: Sequence[Job]) -> float | None:
        """Estimate the time left from the mean time of the jobs that this command ran.

        Returns:
            None before the first job has ended, and after the last.
        """
        ran = [job.seconds for job in jobs if job.state in ("done", "pruned") and not job.found and job.seconds]
        rest = [job for job in jobs if job.state in ("waiting", "running")]
        if not ran or not rest:
            return None
        mean = sum(ran) / len(ran)
        spent = sum(min(mean, time.monotonic() - since) for since in self.since.values())
        return max(0.0, mean * len(rest) - spent) / min(self.slots, len(rest))

    def __rich__(self) -> Group:
        running = [job for job in self.jobs if job.number in self.since]
        lines = [
            Text(
                f"  {duration(time.monotonic() - self.since[job.number]):>7}  {job.name(self.root)}",
                overflow="ellipsis",
            )
            for job in running[:SHOWN]
        ]
        if len(running) > SHOWN:
            lines.append(Text(f"  and {len(running) - SHOWN} more"))
        return Group(*lines, Text(self.summary()))

    def _note(self, job: Job) -> None:
        if job.state == "done" and (found := score(job.run)) is not None:
            self.best = max(found, self.best or 0.0)

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours, depending on its length."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
