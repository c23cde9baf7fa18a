"""Jobs of sweeps that have no finished run, the commands of the runs, and repeated trainings that are not equal."""

from __future__ import annotations

import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd.errors import KDError
from kd.report.arms import Arm
from kd.report.origin import command_of, plain_command
from kd.report.runs import Found, Run
from kd.report.words import plural
from kd.storage import records

STATES = {"failed": "failed", "running": "not finished", "waiting": "not started"}


class Job(NamedTuple):
    """A job in a ``sweep.json``.

    Args:
        place: its run directory.
        folder, command: those of the sweep; the command is empty where there is no record of it.
        record: its entry in the file.
    """

    place: Path
    folder: Path
    command: str
    record: dict[str, Any]


def find_jobs(folders: Iterable[Path]) -> list[Job]:
    """Find the jobs of the sweeps in or below the folders. A file that is not whole is named on standard error."""
    paths = {path.resolve(): path for folder in folders for path in sorted(folder.glob("**/sweep.json"))}
    found = []
    for path in paths.values():
        try:
            content = records.read(path, records.Sweep)
        except KDError as error:
            print(f"kd report: left out: {error}", file=sys.stderr)
            continue
        command = shlex.join(plain_command(content.get("command")))
        found += [Job((path.parent / job["directory"]).resolve(), path.parent, command, job) for job in content["jobs"]]
    return found


class Problem(NamedTuple):
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


def problems(found: Found, jobs: list[Job]) -> list[Problem]:
    """List every run that failed, was pruned, is unfinished, damaged or missing, once."""
    made: list[Problem] = []
    seen = {part.directory.path.resolve() for run in found.runs for part in run.trainings}
    reasons = {place.resolve(): reason for place, reason in found.left_out}
    for place, folder, _, job in jobs:
        if place in seen:  # done since, or the same run as an earlier job
            continue
        seen.add(place)
        state, log = job["state"], job.get("log")
        what = " ".join(job["overrides"]) or job["directory"]
        reason = job.get("reason") or reasons.get(place) or ""
        if state == "done":
            state, reason = ("damaged", reason) if place in reasons else ("missing", "its directory is gone")
        made.append(Problem(what, STATES.get(state, state), reason, str(folder / log) if log else ""))
    for place, reason in found.left_out:
        if place.resolve() not in seen:
            state, _, rest = reason.partition(": ")
            known = state in ("failed", "pruned", "not finished")
            made.append(Problem(str(place), state if known else "damaged", rest if known else reason))
    return made


def commands(runs: Iterable[Run], jobs: list[Job]) -> list[str]:
    """List the commands that made the runs, each once; the jobs of a sweep have one command."""
    of_sweep = {job.place: job.command for job in jobs if job.command}
    lines = (
        of_sweep.get(run.directory.path.resolve()) or shlex.join(command_of(run.directory, run.environment))
        for run in runs
    )
    return list(dict.fromkeys(filter(None, lines)))


class Agreement(NamedTuple):
    """The comparison of runs with the same configuration and seed.

    Args:
        equal: number of further runs with the same logits.
        disagreements: a sentence for each run that should have the same logits and does not.
        not_promised: number of further runs on another machine, software, rows or teacher, or without
            ``trainer.deterministic=true``.
    """

    equal: int
    disagreements: list[str]
    not_promised: int


def agreement(arms: Iterable[Arm]) -> Agreement:
    """Compare the copies of each run with it."""
    further, compared = 0, []
    for arm in arms:
        further += len(arm.copies)
        groups: dict[Any, list[Run]] = defaultdict(list)
        for run in (*arm.runs, *arm.copies):
            if run.deterministic:
                groups[run.seed, conditions(run)].append(run)
        compared += [difference(runs[0], copy) for runs in groups.values() for copy in runs[1:]]
    return Agreement(compared.count(None), [one for one in compared if one], further - len(compared))


def conditions(run: Run) -> str:
    """Return what two deterministic runs must share for equal logits."""
    environment, data = run.environment, run.environment["data"]
    software = [environment.get(name) for name in ("python", "packages", "git", "machine", "threads")]
    return repr([software, *(data.get(name) for name in ("train", "validation", "test")), run.teacher])


def difference(first: Run, second: Run) -> str | None:
    """Say how the logits of two runs on validation and test differ; None where they are equal."""
    pairs = [
        (one.logits, other.logits)
        for one, other in ((first.validation, second.validation), (first.test, second.test))
        if one and other and one.logits.shape == other.logits.shape
    ]
    rows = sum(int((one != other).any(axis=1).sum()) for one, other in pairs)
    if not rows:
        return None
    labels = sum(int((one.argmax(axis=1) != other.argmax(axis=1)).sum()) for one, other in pairs)
    largest = max(float(np.abs(one - other).max()) for one, other in pairs)
    uncommitted = (first.environment.get("git") or {}).get("uncommitted_changes")
    maybe = "; the code had uncommitted changes, which may be the cause" if uncommitted else ""
    return (
        f"{first.directory.path} and {second.directory.path} have the same configuration, seed, machine and software "
        f"with trainer.deterministic=true. The logits of {plural(rows, 'row')} differ (by up to {largest:.2g}), the "
        f"labels of {labels}{maybe}."
    )
