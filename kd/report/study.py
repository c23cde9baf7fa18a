"""All runs with one test set: their arms, comparisons, the choice by validation, missing baselines."""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kd.report.arms import OVER_BASELINE, TITLES, Arm, Pair, arms, baseline_index, baselines, budget, pairs
from kd.report.origin import overrides
from kd.report.runs import Run
from kd.report.settings import OF_TRANSFER
from kd.report.verdicts import Comparison, Judge, best_by_validation
from kd.report.words import short

NOT_OF_A_BASELINE = (*OF_TRANSFER, "hydra", "seed", "resume", "rerun", "objective")
"""Overrides that the command for a baseline leaves out."""
BEST = "the best by validation"


@dataclass(frozen=True)
class MissingBaseline:
    """Arms without a matched baseline, because supervised runs of their seeds are missing.

    Args:
        arms: their names.
        seeds: the missing ones.
        command: trains them; empty where the runs have no record of their command.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    command: str

    def __str__(self) -> str:
        named = ", ".join(self.arms[:3]) + (f" and {len(self.arms) - 3} more" if len(self.arms) > 3 else "")
        return f"no supervised baseline for {named}, seed {', '.join(map(str, self.seeds))}"


class Study:
    """The runs with one test set; figures are computed when they are first read.

    Args:
        runs: finished, with outputs for the same test rows.
    """

    def __init__(self, runs: list[Run]):
        self.arms = arms(runs)
        self.everything = runs

    @property
    def runs(self) -> list[Run]:
        """One run for each setting and seed."""
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
        """Each teacher with a run that has its outputs; not of joint training, which changes its teacher."""
        fixed = [run for run in self.runs if run.environment["teacher"] and run.method != "joint"]
        found = {run.environment["teacher"]["checksum"]: run for run in fixed if run.test.teacher_logits is not None}
        name = lambda run: f"teacher {short(run.metrics['teacher_cost']['name'])}"  # noqa: E731
        return [("teacher" if len(found) == 1 else name(run), run) for run in found.values()]

    def teacher_cost(self, run: Run) -> dict[str, Any]:
        """Return the costs of a run's teacher; its latency is the median over the runs that share the teacher."""
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
        return run.metrics["teacher_cost"] | {
            "labelling_seconds": labelled[0] if labelled else None,
            "latency": latency,
        }

    @property
    def teacher_names(self) -> list[str]:
        costs = (run.metrics["teacher_cost"] for run in self.runs if "teacher_cost" in run.metrics)
        return sorted({short(cost["name"]) for cost in costs})

    @cached_property
    def comparisons(self) -> dict[str, list[Comparison]]:
        """The comparisons by title; each title is a family of its own."""
        by_title: dict[str, list[Pair]] = defaultdict(list)
        for pair in pairs(self.arms):
            by_title[pair.title].append(pair)
        return {title: self.judge.compare(by_title[title]) for title in TITLES if title in by_title}

    @cached_property
    def best(self) -> Arm | None:
        """The best arm by validation; None where no run kept its figures."""
        return best_by_validation(self.arms)

    @cached_property
    def against_best(self) -> list[Comparison]:
        """The difference of each arm with a seed in common from the best by validation."""
        if self.best is None:
            return []
        made = [Pair(BEST, arm, self.best) for arm in self.arms if arm is not self.best]
        return self.judge.compare([pair for pair in made if pair.seeds])

    @cached_property
    def best_taught(self) -> Arm | None:
        """The best by validation of the arms with a teacher or peers."""
        return best_by_validation([arm for arm in self.arms if not arm.supervised])

    @cached_property
    def baseline_of(self) -> dict[str, Arm]:
        """The matched baseline of each arm with a teacher or peers; of several, the best by validation."""
        index = baseline_index(self.arms)
        found = {}
        for arm in self.arms:
            matches = [one for one in baselines(arm, index) if set(one.seeds) & set(arm.seeds)]
            if matches and not arm.supervised:
                found[arm.name] = best_by_validation(matches) or matches[0]
        return found

    @cached_property
    def over_baselines(self) -> list[Comparison]:
        """All comparisons with a matched baseline."""
        return [one for title in OVER_BASELINE for one in self.comparisons.get(title, [])]

    def gain(self, arm: Arm) -> Comparison | None:
        """Return the comparison of an arm with its baseline."""
        baseline = self.baseline_of.get(arm.name)
        return next((one for one in self.over_baselines if one.pair.arm is arm and one.pair.other is baseline), None)

    @cached_property
    def missing(self) -> list[MissingBaseline]:
        """The missing baselines; arms that lack the same one share an entry."""
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
        """How often the test rows were read: by every training, copies of a run included, and by ``kd evaluate``."""
        return sum(run.directory.test_reads() for run in self.everything)

    def teacher_accuracy(self, arm: Arm) -> float | None:
        """Return the mean accuracy of its runs' teacher on the test rows."""
        known = [run.test.teacher_correct.mean() for run in arm.runs if run.test.teacher_logits is not None]
        return float(np.mean(known)) if known else None


def studies(runs: list[Run]) -> list[Study]:
    """Group the runs by test set, the largest group first."""
    by_rows: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_rows[run.test_rows].append(run)
    return [Study(group) for group in sorted(by_rows.values(), key=len, reverse=True)]


def baseline_command(run: Run, seeds: tuple[int, ...]) -> str:
    """Return the command that trains the supervised runs of the same student, data and budget."""
    given = overrides(run.directory, run.environment)
    if given is None:
        return ""
    kept = [word for word in given if not of_transfer(word)]
    searched = ["hydra/sweeper=basic"] if any(word.startswith("experiment=") for word in kept) else []
    words = ["method=supervised", *kept, *searched, f"seed={','.join(map(str, seeds))}"]
    return shlex.join(["kd", "train", "-m", *words])


def of_transfer(override: str) -> bool:
    """Whether the command for a baseline leaves out this override; ``@`` or ``/`` may follow the name of a group.

    >>> [of_transfer(word) for word in ("balance/alpha=linear", "+student@peers.other=dan", "objective=latency")]
    [True, True, True]
    >>> of_transfer("student=dan")
    False
    """
    key = override.lstrip("+~").partition("=")[0]
    group, _, package = key.partition("@")
    return any(part.replace("/", ".").split(".")[0] in NOT_OF_A_BASELINE for part in (group, package))
