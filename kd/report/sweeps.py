"""What lies beside the runs: the jobs of sweeps that did not end, readings of the test split, runs that disagree."""

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
from kd.storage.files import read_json

STATES = {"failed": "failed", "running": "not finished", "waiting": "not started"}


@dataclass(frozen=True)
class Problem:
    """A run that the tables lack.

    Args:
        what: its overrides where a sweep tells them, else its place.
        state: failed, pruned, not finished, not started, missing or damaged.
        reason: a sentence, or nothing.
        log: where to read on.
    """

    what: str
    state: str
    reason: str
    log: str = ""


@dataclass(frozen=True)
class Sweep:
    """A ``sweep.json``; what is written there is read tolerantly."""

    folder: Path
    command: str
    jobs: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, path: Path) -> Sweep | None:
        try:
            content = read_json(path)
        except KDError:
            return None
        told = content.get("jobs")
        jobs = tuple(job for job in told if isinstance(job, dict)) if isinstance(told, list) else ()
        command = plain_command(content.get("command"))
        return cls(path.parent, shlex.join(command) if command else "", jobs)

    def place(self, job: dict[str, Any]) -> Path:
        return (self.folder / str(job.get("directory") or ".")).resolve()


def find_sweeps(folders: Iterable[Path]) -> list[Sweep]:
    """The sweeps in or below the folders."""
    paths = {path.resolve(): path for folder in folders for path in sorted(folder.glob("**/sweep.json"))}
    return [sweep for path in paths.values() if (sweep := Sweep.read(path))]


def problems(found: Found, sweeps: list[Sweep]) -> list[Problem]:
    """Every run that is failed, pruned, unfinished, damaged or missing, once."""
    made: list[Problem] = []
    told: set[Path] = set()
    reasons = {place.resolve(): reason for place, reason in found.left_out}
    whole = {run.directory.path.resolve() for run in found.runs}
    for sweep in sweeps:
        for job in sweep.jobs:
            place, state = sweep.place(job), str(job.get("state"))
            if place in whole or place in told:  # done since, or a job that is the same run as an earlier one
                continue
            what = " ".join(map(str, job.get("overrides") or ())) or str(job.get("directory") or job.get("number"))
            reason = str(job.get("reason") or reasons.get(place) or "")
            if state == "done":
                state, reason = ("damaged", reason) if place in reasons else ("missing", "its directory is gone")
            told.add(place)
            log = job.get("log")
            made.append(Problem(what, STATES.get(state, state), reason, str(sweep.folder / str(log)) if log else ""))
    for place, reason in found.left_out:
        if place.resolve() not in told:
            state, _, rest = reason.partition(": ")
            known = state in ("failed", "pruned", "not finished")
            made.append(Problem(str(place), state if known else "damaged", rest if known else reason))
    return made


def commands(runs: Iterable[Run], sweeps: list[Sweep]) -> list[str]:
    """What made the runs, each command once: a sweep's for all its jobs."""
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
    """Two runs that should agree to the bit and do not.

    Args:
        rows: how many have other logits.
        labels: how many have another label.
        largest: difference of two logits.
        uncommitted: the code had changes that no commit holds, which may explain it.
    """

    first: Path
    second: Path
    rows: int
    labels: int
    largest: float
    uncommitted: bool

    def __str__(self) -> str:
        maybe = "; the code had uncommitted changes, which may be why" if self.uncommitted else ""
        return (
            f"{self.first} and {self.second} have the same configuration, seed, machine and software with "
            f"trainer.deterministic=true, and differ: {self.rows} rows have other logits (by up to "
            f"{self.largest:.2g}), {self.labels} another label{maybe}."
        )


@dataclass(frozen=True)
class Agreement:
    """Runs of one configuration and seed, held against each other.

    Args:
        equal: how many further runs gave the very same answers.
        disagreements: those that should have, by `ground`, and did not.
        other_ground: further runs on another machine, software, rows or teacher, or without
            ``trainer.deterministic=true``: nothing is promised there.
    """

    equal: int
    disagreements: tuple[Disagreement, ...]
    other_ground: int


def ground(run: Run) -> tuple[Any, ...] | None:
    """What two runs must share to be promised equal; None for a run that promises nothing."""
    told = run.environment
    if not run.deterministic:
        return None
    data, teacher = told["data"], told["teacher"] or {}
    return tuple(
        repr(part)
        for part in (
            *(told.get(name) for name in ("python", "packages", "git", "machine", "threads")),
            *(data.get(name) for name in ("train", "validation", "test")),
            teacher.get("checksum"),
        )
    )


def agreement(arms: Iterable[Arm]) -> Agreement:
    """Hold the copies of a run against it."""
    equal, other_ground, found = 0, 0, []
    for arm in arms:
        by_ground: dict[Any, list[Run]] = defaultdict(list)
        for run in (*arm.runs, *arm.copies):
            by_ground[run.seed, ground(run)].append(run)
        for (_, stands_on), runs in by_ground.items():
            if stands_on is None:
                continue
            for copy in runs[1:]:
                apart = difference(runs[0], copy)
                equal += apart is None
                found += [apart] if apart else []
        with_same_seed = len(arm.runs) + len(arm.copies) - len(arm.seeds)
        compared = sum(len(runs) - 1 for (_, stands_on), runs in by_ground.items() if stands_on is not None)
        other_ground += with_same_seed - compared
    return Agreement(equal, tuple(found), other_ground)


def difference(first: Run, second: Run) -> Disagreement | None:
    """Where the answers of two runs differ, on validation and test; None where they do not."""
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
