"""All runs with one test set: their arms, what is compared, what is chosen, what is missing."""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kd.report.arms import TITLES, Arm, Pair, arms, baseline_index, baselines, budget, pairs
from kd.report.origin import overrides
from kd.report.runs import Run
from kd.report.settings import OF_TRANSFER
from kd.report.verdicts import Comparison, Judge, best_by_validation
from kd.report.words import short

NOT_OF_A_BASELINE = (*OF_TRANSFER, "hydra", "seed", "cache", "resume", "rerun", "objective")
"""Overrides that a command for a baseline leaves out."""
BEST = "the best by validation"


@dataclass(frozen=True)
class MissingBaseline:
    """Transfer arms without their matched baseline, for lack of a supervised run of the same seed.

    Args:
        arms: names.
        seeds: that are missing.
        command: that trains them, or nothing where the runs do not tell how they were made.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    command: str

    def __str__(self) -> str:
        named = ", ".join(self.arms[:3]) + (f" and {len(self.arms) - 3} more" if len(self.arms) > 3 else "")
        return f"no supervised baseline for {named}, seed {', '.join(map(str, self.seeds))}"


class Study:
    """What the report says of one test set, computed when it is asked for.

    Args:
        runs: finished, with answers to the same test rows.
    """

    def __init__(self, runs: list[Run]):
        self.arms = arms(runs)
        self.everything = runs

    @property
    def runs(self) -> list[Run]:
        """One a setting and seed."""
        return [run for arm in self.arms for run in arm.runs]

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.arms)

    @property
    def students(self) -> str:
        return ", ".join(sorted({run.metrics["student"] for run in self.runs}))

    @property
    def data(self) -> str:
        return ", ".join(sorted({run.metrics["data"] for run in self.runs}))

    @property
    def rows(self) -> int:
        return len(self.runs[0].test.labels)

    @property
    def validation_rows(self) -> int | None:
        split = next((run.validation for run in self.runs if run.validation is not None), None)
        return None if split is None else len(split.labels)

    @cached_property
    def teachers(self) -> list[tuple[str, Run]]:
        """Each teacher with a run that tells of it; joint training moves its teacher."""
        taught = [run for run in self.runs if run.environment["teacher"] and run.way != "joint"]
        found = {run.environment["teacher"]["checksum"]: run for run in taught if run.test.teacher_logits is not None}
        name = lambda run: f"teacher {short(run.metrics['teacher_cost']['name'])}"  # noqa: E731
        return [("teacher" if len(found) == 1 else name(run), run) for run in found.values()]

    def teacher_cost(self, run: Run) -> dict[str, Any]:
        """What the teacher of a run takes; its latency is the median of what the runs that share it measured."""
        checksum = run.environment["teacher"]["checksum"]
        same = [
            one.metrics["teacher_cost"]
            for one in self.everything
            if (one.environment["teacher"] or {}).get("checksum") == checksum and "teacher_cost" in one.metrics
        ]
        latency = dict(run.metrics["teacher_cost"]["latency"])
        for name in ("p50_ms", "p95_ms"):
            if name in latency:
                latency[name] = float(np.median([cost["latency"].get(name, latency[name]) for cost in same]))
        labelled = [cost["labelling_seconds"] for cost in same if cost.get("labelling_seconds")]
        told = {"labelling_seconds": labelled[0] if labelled else None, "latency": latency}
        return run.metrics["teacher_cost"] | told

    @property
    def teacher_names(self) -> list[str]:
        costs = (run.metrics["teacher_cost"] for run in self.runs if "teacher_cost" in run.metrics)
        return sorted({short(cost["name"]) for cost in costs})

    @cached_property
    def comparisons(self) -> dict[str, list[Comparison]]:
        """By title; each title is a family of its own."""
        by_title: dict[str, list[Pair]] = defaultdict(list)
        for pair in pairs(self.arms):
            by_title[pair.title].append(pair)
        return {title: self.judge.compare(by_title[title]) for title in TITLES if title in by_title}

    @cached_property
    def best(self) -> Arm | None:
        """By validation alone."""
        return best_by_validation(self.arms)

    @cached_property
    def against_best(self) -> list[Comparison]:
        """Every arm with a seed in common, less the best by validation."""
        if self.best is None:
            return []
        made = [Pair(BEST, arm, self.best) for arm in self.arms if arm is not self.best]
        return self.judge.compare([pair for pair in made if pair.seeds])

    @cached_property
    def best_taught(self) -> Arm | None:
        """The best by validation of those that a teacher or peers taught."""
        return best_by_validation([arm for arm in self.arms if not arm.supervised])

    @cached_property
    def baseline_of(self) -> dict[str, Arm]:
        """The matched baseline of each transfer arm; of several, the best by validation."""
        index = baseline_index(self.arms)
        found = {}
        for arm in self.arms:
            matches = [one for one in baselines(arm, index) if set(one.seeds) & set(arm.seeds)]
            if matches and not arm.supervised:
                found[arm.name] = best_by_validation(matches) or matches[0]
        return found

    def brought(self, arm: Arm) -> Comparison | None:
        """What transfer brought to an arm over its baseline."""
        baseline = self.baseline_of.get(arm.name)
        family = [one for title in (TITLES[0], TITLES[3]) for one in self.comparisons.get(title, [])]
        return next((one for one in family if one.pair.arm is arm and one.pair.other is baseline), None)

    @cached_property
    def missing(self) -> list[MissingBaseline]:
        index = baseline_index(self.arms)
        lacking: dict[object, list[tuple[Arm, tuple[int, ...]]]] = defaultdict(list)
        for arm in self.arms:
            if arm.supervised:
                continue
            there = {seed for one in baselines(arm, index) for seed in one.seeds}
            if seeds := tuple(seed for seed in arm.seeds if seed not in there):
                lacking[budget(arm.first)].append((arm, seeds))
        found = []
        for group in lacking.values():
            seeds = tuple(sorted({seed for _, wanted in group for seed in wanted}))
            names = tuple(arm.name for arm, _ in group)
            found.append(MissingBaseline(names, seeds, baseline_command(group[0][0].first, seeds)))
        return found

    @property
    def test_reads(self) -> int:
        """By every training and every further look, copies of a run included."""
        return sum(run.directory.test_reads() for run in self.everything)

    def teacher_accuracy(self, arm: Arm) -> float | None:
        """Of the teacher that its runs had, on the test rows."""
        known = [run.test.teacher_correct.mean() for run in arm.runs if run.test.teacher_logits is not None]
        return float(np.mean(known)) if known else None


def studies(runs: list[Run]) -> list[Study]:
    """One for each test set, the largest first."""
    by_rows: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_rows[run.test_rows].append(run)
    return [Study(group) for group in sorted(by_rows.values(), key=len, reverse=True)]


def baseline_command(run: Run, seeds: tuple[int, ...]) -> str:
    """The command that trains the supervised runs of the same student, data and budget."""
    said = overrides(run.directory, run.environment)
    if said is None:
        return ""
    kept = [word for word in said if not of_transfer(word)]
    searched = ["hydra/sweeper=basic"] if any(word.startswith("experiment=") for word in kept) else []
    words = ["method=supervised", *kept, *searched, f"seed={','.join(map(str, seeds))}"]
    return shlex.join(["kd", "train", "-m", *words])


def of_transfer(override: str) -> bool:
    """Whether a baseline does without this override; a group's name may stand before ``@`` or ``/``.

    >>> [of_transfer(word) for word in ("balance/alpha=linear", "+student@peers.other=dan", "objective=latency")]
    [True, True, True]
    >>> of_transfer("student=dan")
    False
    """
    key = override.lstrip("+~").partition("=")[0]
    group, _, package = key.partition("@")
    return any(part.replace("/", ".").split(".")[0] in NOT_OF_A_BASELINE for part in (group, package))
