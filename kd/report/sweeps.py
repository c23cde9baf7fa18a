"""Jobs of sweeps that have no finished run, the commands of the runs, and repeated trainings that are not equal."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd.errors import KDError
from kd.report.arms import Arm
from kd.report.origin import plain_command
from kd.report.runs import Found, Run
from kd.report.words import plural
from kd.storage.files import read_json

STATES = {"failed": "failed", "running": "not finished", "waiting": "not started"}


@dataclass(frozen=True)
class Problem:
    """A run that is in no table.

    Args:
        what: its overrides where a sweep records them, else its place.
        state: failed, pruned, not finished, not started, missing or damaged.
        reason: a sentence, or empty.
        log: the log file, or empty.
    """

    what: str
    state: str
    reason: str
    log: str = ""


@dataclass(frozen=True)
class Sweep:
    """A ``sweep.json``; parts of it that have the wrong type are ignored."""

    folder: Path
    command: str
    jobs: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, path: Path) -> Sweep | None:
        try:
            content = read_json(path)
        except KDError:
            return None
        listed = content.get("jobs")
        jobs = tuple(job for job in listed if isinstance(job, dict)) if isinstance(listed, list) else ()
        command = plain_command(content.get("command"))
        return cls(path.parent, shlex.join(command) if command else "", jobs)

    def place(self, job: dict[str, Any]) -> Path:
        return (self.folder / str(job.get("directory") or ".")).resolve()


def find_sweeps(folders: Iterable[Path]) -> list[Sweep]:
    """Find the sweeps in or below the folders."""
    paths = {path.resolve(): path for folder in folders for path in sorted(folder.glob("**/sweep.json"))}
    return [sweep for path in paths.values() if (sweep := Sweep.read(path))]


def problems(found: Found, sweeps: list[Sweep]) -> list[Problem]:
    """List every run that failed, was pruned, is unfinished, damaged or missing, once."""
    made: list[Problem] = []
    seen: set[Path] = set()
    reasons = {place.resolve(): reason for place, reason in found.left_out}
    whole = {run.directory.path.resolve() for run in found.runs}
    for sweep in sweeps:
        for job in sweep.jobs:
            place, state = sweep.place(job), str(job.get("state"))
            if place in whole or place in seen:  # done since, or the same run as an earlier job
                continue
            what = " ".join(map(str, job.get("overrides") or ())) or str(job.get("directory") or job.get("number"))
            reason = str(job.get("reason") or reasons.get(place) or "")
            if state == "done":
                state, reason = ("damaged", reason) if place in reasons else ("missing", "its directory is gone")
            seen.add(place)
            log = job.get("log")
            made.append(Problem(what, STATES.get(state, state), reason, str(sweep.folder / str(log)) if log else ""))
    for place, reason in found.left_out:
        if place.resolve() not in seen:
            state, _, rest = reason.partition(": ")
            known = state in ("failed", "pruned", "not finished")
            made.append(Problem(str(place), state if known else "damaged", rest if known else reason))
    return made


def commands(runs: Iterable[Run], sweeps: list[Sweep]) -> list[str]:
    """List the commands that made the runs, each once; the jobs of a sweep have one command."""
    of_sweep = {sweep.place(job): sweep.command for sweep in sweeps for job in sweep.jobs if sweep.command}
    found: dict[str, None] = {}
    for run in runs:
        line = of_sweep.get(run.directory.path.resolve())
        if not line and (words := run.command):
            line = shlex.join(words)
        if line:
            found.setdefault(line)
    return list(found)


@dataclass(frozen=True)
class Disagreement:
    """Two runs that should have the same logits, bit for bit, and do not.

    Args:
        rows: number of rows whose logits differ.
        labels: number of rows whose predicted labels differ.
        largest: largest difference of two logits.
        uncommitted: the code had uncommitted changes, which may be the cause.
    """

    first: Path
    second: Path
    rows: int
    labels: int
    largest: float
    uncommitted: bool

    def __str__(self) -> str:
        maybe = "; the code had uncommitted changes, which may be the cause" if self.uncommitted else ""
        return (
            f"{self.first} and {self.second} have the same configuration, seed, machine and software with "
            f"trainer.deterministic=true. The logits of {plural(self.rows, 'row')} differ (by up to "
            f"{self.largest:.2g}), the labels of {self.labels}{maybe}."
        )


@dataclass(frozen=True)
class Agreement:
    """The comparison of runs with the same configuration and seed.

    Args:
        equal: number of further runs with the same logits.
        disagreements: runs that should have the same logits and do not.
        not_promised: number of further runs on another machine, software, rows or teacher, or without
            ``trainer.deterministic=true``.
    """

    equal: int
    disagreements: tuple[Disagreement, ...]
    not_promised: int


def conditions(run: Run) -> tuple[Any, ...] | None:
    """Return what two runs must share for equal logits; None for a run that is not deterministic."""
    environment = run.environment
    if not run.deterministic:
        return None
    data, teacher = environment["data"], environment["teacher"] or {}
    return tuple(
        repr(part)
        for part in (
            *(environment.get(name) for name in ("python", "packages", "git", "machine", "threads")),
            *(data.get(name) for name in ("train", "validation", "test")),
            teacher.get("checksum"),
        )
    )


def agreement(arms: Iterable[Arm]) -> Agreement:
    """Compare the copies of each run with it."""
    equal, not_promised, found = 0, 0, []
    for arm in arms:
        groups: dict[Any, list[Run]] = defaultdict(list)
        for run in (*arm.runs, *arm.copies):
            groups[run.seed, conditions(run)].append(run)
        compared = 0
        for (_, shared), runs in groups.items():
            if shared is None:
                continue
            for copy in runs[1:]:
                apart = difference(runs[0], copy)
                equal += apart is None
                found += [apart] if apart else []
                compared += 1
        not_promised += len(arm.copies) - compared
    return Agreement(equal, tuple(found), not_promised)


def difference(first: Run, second: Run) -> Disagreement | None:
    """Compare the logits of two runs on validation and test; None where they are equal."""
    pairs = [
        (one.logits, other.logits)
        for one, other in ((first.validation, second.validation), (first.test, second.test))
        if one is not None and other is not None and one.logits.shape == other.logits.shape
    ]
    rows = sum(int((one != other).any(axis=1).sum()) for one, other in pairs)
    if not rows:
        return None
    labels = sum(int((one.argmax(axis=1) != other.argmax(axis=1)).sum()) for one, other in pairs)
    largest = max(float(np.abs(one - other).max()) for one, other in pairs)
    uncommitted = bool((first.environment.get("git") or {}).get("uncommitted_changes"))
    return Disagreement(first.directory.path, second.directory.path, rows, labels, largest, uncommitted)
