"""``sweep.json``: the jobs of a sweep's last command and their results."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.storage import records
from kd.sweep.jobs import LOG, Job

FILE = "sweep.json"

log = logging.getLogger(__name__)


class Record:
    """Writes the file of a command in the sweep's directory ``root``, anew whenever a job changes."""

    def __init__(self, root: Path, command: list[str]) -> None:
        self.root, self.command, self.started = root, command, now()
        self.attempts: dict[str, int] = {}
        for job in read(root).get("jobs", []):
            self.attempts[job["identity"]] = max(job["attempts"], self.attempts.get(job["identity"], 0))
        self.jobs: list[Job] = []

    def write(self, finished: bool = False) -> None:
        """Write the file; ``finished`` says that the sweep is over."""
        jobs = [
            {
                "number": job.number,
                "overrides": [override for override in job.overrides if not re.match(r"\+*hydra[./]", override)],
                "identity": job.identity,
                "directory": job.name(self.root),
                "state": job.state,
                "reason": job.reason,
                "log": f"{job.name(self.root)}/{LOG}" if job.log.is_file() else None,
                "attempts": job.attempts,
                "seconds": job.seconds,
                "found": job.found,
            }
            for job in self.jobs
        ]
        content = {
            "format": records.FORMAT,
            "command": self.command,
            "started": self.started,
            "finished": now() if finished else None,
            "jobs": jobs,
        }
        records.write(self.root / FILE, content)


def now() -> str:
    """Return the time in the format that the files of a run use."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def read(root: Path) -> dict[str, Any]:
    """Read the file; return an empty dict if it is missing. The reason is logged if it is damaged or of a newer kd."""
    if not (root / FILE).is_file():
        return {}
    try:
        return records.read(root / FILE, records.Sweep)
    except KDError as error:
        log.warning("%s", error)
        return {}


def print_table(root: Path) -> None:
    """Print the runs of the last command with their states, and the reasons of failures below the table."""
    jobs = read(root).get("jobs", [])
    if not jobs:
        return
    console = Console(soft_wrap=True)
    if not console.is_terminal:  # names in a log must be whole, so that they can be copied
        console.width = max(80, 40 + max(len(job["directory"]) for job in jobs))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("", "job", "state", "val %", "s"):
        table.add_column(name, justify="left" if name in ("job", "state") else "right", overflow="fold")
    shown: dict[str, int] = {}
    for job in jobs:
        first = shown.setdefault(job["identity"], job["number"])
        if first != job["number"]:
            continue
        state = job["state"] + (" before" if job["found"] else "")
        same = sum(other["identity"] == job["identity"] for other in jobs) - 1
        state += f", the same run as {same} other job{'s' * (same > 1)}" if same else ""
        best = score(RunDirectory(root / job["directory"])) if job["state"] == "done" else None
        seconds = "" if job["seconds"] is None else f"{job['seconds']:.0f}"
        table.add_row(str(job["number"]), job["directory"], state, "" if best is None else f"{100 * best:.1f}", seconds)
    console.print(f"sweep {root}", markup=False, highlight=False)
    console.print(table)
    for job in jobs:
        if job["state"] == "failed" and shown[job["identity"]] == job["number"]:
            log = f" (log: {root / job['log']})" if job["log"] else ""
            console.print(f"{job['number']} failed: {job['reason']}{log}", markup=False, highlight=False)


def score(run: RunDirectory) -> float | None:
    """Return what the run's ``metric`` is on validation; None if its files do not hold it."""
    try:
        found = run.objective(run.config().get("metric", "accuracy"))
        return found if isinstance(found, float) else None
    except (KDError, KeyError, TypeError, ValueError):
        return None
