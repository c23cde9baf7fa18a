"""All runs with one test set: their arms, comparisons, the choice by validation, missing baselines."""

from __future__ import annotations

import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kd.errors import KDError
from kd.options.methods import CLOSED_FORM, UNREAD_IN_CLOSED_FORM
from kd.options.sections import Metric
from kd.report.arms import OVER_BASELINE, TITLES, Arm, Pair, arms, bags, baselines, budget, pairs
from kd.report.origin import overrides
from kd.report.runs import Run, figure
from kd.report.settings import OF_TRANSFER, target_of_student
from kd.report.verdicts import Comparison, Judge, best_by_validation
from kd.report.words import short

NOT_OF_A_BASELINE = (*OF_TRANSFER, "hydra", "seed", "resume", "rerun", "objective")
"""Overrides that the command for a baseline leaves out."""
NOT_OF_A_BAG = ("student", "tokenizer", *UNREAD_IN_CLOSED_FORM)
"""Overrides that the command for a bag of n-grams leaves out too."""


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
    """All finished runs with outputs for the same test rows; figures are computed when they are first read.

    Attributes:
        metric: what the arms are compared by.
        differing: the metrics of the runs, where they do not agree.
    """

    def __init__(self, everything: list[Run]):
        self.metric, self.differing = metric_of(everything)
        self.everything = [run if run.metric == self.metric else replace(run, metric=self.metric) for run in everything]
        self.arms = arms(self.everything)
        self.runs = [run for arm in self.arms for run in arm.runs]  # one for each setting and seed
        self.rows = len(self.runs[0].test.labels)
        self.baselines = baselines(self.arms)
        names = lambda key: ", ".join(sorted({run.metrics[key] for run in self.runs}))  # noqa: E731
        self.data, self.title = names("data"), f"{names('student')} on {names('data')}"

    @property
    def trainings(self) -> list[Run]:
        """All trainings: pooled folds count one by one."""
        return [part for run in self.everything for part in run.trainings]

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.arms)

    @cached_property
    def teachers(self) -> list[Arm]:
        """Each teacher as an arm of one run, whose ``metrics`` are the teacher's figures and costs.

        The teachers of joint training are left out, because each run changes its own.
        """
        fixed = [run for run in self.runs if run.teacher and run.method != "joint"]
        found = {run.teacher: (run, run.test.teacher) for run in fixed if run.test.teacher}
        made = []
        for run, test in found.values():
            metrics = self.teacher_cost(run)
            name = f"teacher {short(metrics['name'])}" if len(found) > 1 else "teacher"
            metrics |= {split: figure(run.metrics, split, "teacher") or {} for split in ("validation", "test")}
            validation = run.validation.teacher if run.validation else None
            alone = replace(run, method="teacher", metrics=metrics, test=test, validation=validation)
            made.append(Arm(name, (alone,)))
        return made

    def teacher_cost(self, run: Run) -> dict[str, Any]:
        """Return the costs of a run's teacher; its latency is the median over the runs that share the teacher."""
        runs = [one for one in self.everything if one.teacher == run.teacher and "teacher_cost" in one.metrics]
        same, cost = [one.metrics["teacher_cost"] for one in runs], run.metrics["teacher_cost"]
        if not cost.get("latency"):  # a teacher that is a file
            return cost | {"labelling_seconds": None}
        times = {
            name: float(np.median([one["latency"].get(name, cost["latency"][name]) for one in same]))
            for name in ("p50_ms", "p95_ms")
            if name in cost["latency"]
        }
        labelled = next((one["labelling_seconds"] for one in same if one.get("labelling_seconds")), None)
        return cost | {"labelling_seconds": labelled, "latency": cost["latency"] | times}

    @cached_property
    def comparisons(self) -> dict[str, list[Comparison]]:
        """The comparisons by family, in the order of `TITLES`."""
        made = pairs(self.arms)
        families = {family: [pair for pair in made if pair.family == family] for family in TITLES}
        return {family: self.judge.compare(found) for family, found in families.items() if found}

    @cached_property
    def best(self) -> Arm | None:
        """The best arm by validation; None where no run kept its figures."""
        return best_by_validation(self.arms)

    @cached_property
    def against_best(self) -> list[Comparison]:
        """The difference of each arm with a seed in common from the best by validation."""
        if self.best is None:
            return []
        made = [Pair("best", arm, self.best) for arm in self.arms if arm is not self.best]
        return self.judge.compare([pair for pair in made if pair.seeds])

    @cached_property
    def best_taught(self) -> Arm | None:
        """The best by validation of the arms with a teacher or peers."""
        return best_by_validation([arm for arm in self.arms if arm.method != "supervised"])

    @cached_property
    def baseline_of(self) -> dict[str, Arm]:
        """The matched baseline of each arm with a teacher or peers; of several, the best by validation."""
        found = {}
        for arm in self.arms:
            matches = [one for one in self.baselines(arm) if set(one.seeds) & set(arm.seeds)]
            if matches and arm.method != "supervised":
                found[arm.name] = best_by_validation(matches) or matches[0]
        return found

    @cached_property
    def over_baselines(self) -> list[Comparison]:
        """All comparisons with a matched baseline."""
        return [one for family in OVER_BASELINE for one in self.comparisons.get(family, [])]

    def gain(self, arm: Arm) -> Comparison | None:
        """Return the comparison of an arm with its baseline."""
        baseline = self.baseline_of.get(arm.name)
        return next((one for one in self.over_baselines if one.pair.arm is arm and one.pair.other is baseline), None)

    @cached_property
    def missing(self) -> list[MissingBaseline]:
        """The missing baselines; arms that lack the same one share an entry."""
        lacking: dict[Hashable, list[tuple[Arm, set[int]]]] = defaultdict(list)
        for arm in self.arms:
            there = {seed for one in self.baselines(arm) for seed in one.seeds}
            if arm.method != "supervised" and (absent := set(arm.seeds) - there):
                lacking[budget(arm.first)].append((arm, absent))
        found = []
        for group in lacking.values():
            seeds = tuple(sorted({seed for _, absent in group for seed in absent}))
            command = baseline_command(group[0][0].first, seeds)
            found.append(MissingBaseline(tuple(arm.name for arm, _ in group), seeds, command))
        return found

    @property
    def bag_command(self) -> str:
        """The command that trains a bag of n-grams for these rows; empty where there is a bag or nothing to compare."""
        others = [arm for arm in self.arms if not arm.is_fitted]
        return "" if bags(self.arms) or not others else bag_command(others[0].first)


def metric_of(runs: list[Run]) -> tuple[Metric, list[str]]:
    """Return the metric that the runs follow, and an empty list; or accuracy, and the metrics that they follow.

    A student that is fitted in closed form follows none, and is measured as the others are.
    """
    found = sorted({run.metric for run in runs if target_of_student(run.settings) not in CLOSED_FORM})
    found = found or sorted({run.metric for run in runs})
    return (found[0], []) if len(found) == 1 else ("accuracy", list(found))


def studies(runs: list[Run]) -> list[Study]:
    """Group the runs by test set, the largest group first."""
    by_rows: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_rows[run.test_rows].append(run)
    return [Study(group) for group in sorted(by_rows.values(), key=len, reverse=True)]


def written(
    study: Study, name: str, read: Callable[[Path], dict[str, Any] | None]
) -> Iterator[tuple[Arm, Run, dict[str, Any]]]:
    """Yield what a later command, such as ``kd audit``, has written about each run; a damaged file is left out.

    Args:
        study: whose runs are looked at, arm by arm.
        name: of the file in the directory of a run.
        read: reads it from this directory.
    """
    for arm in study.arms:
        for run in arm.runs:
            place = run.directory.path
            try:
                found = read(place) if (place / name).is_file() else None
            except KDError as error:
                print(f"kd report: left out: {error}", file=sys.stderr)
                continue
            if found:
                yield arm, run, found


def baseline_command(run: Run, seeds: tuple[int, ...]) -> str:
    """Return the command that trains the supervised runs of the same student, data and budget."""
    given = overrides(run.directory, run.environment)
    if given is None:
        return ""
    kept = [word for word in given if not of_transfer(word)]
    searched = ["hydra/sweeper=basic"] if any(word.startswith("experiment=") for word in kept) else []
    words = ["method=supervised", *in_all_folds(run, kept), *searched, f"seed={','.join(map(str, seeds))}"]
    return shlex.join(["kd", "train", "-m", *words])


def bag_command(run: Run) -> str:
    """Return the command that trains a bag of n-grams on the rows of a run, in a folder beside it."""
    given = overrides(run.directory, run.environment)
    if given is None:
        return "kd train student=bag method=supervised (add the options of the data: these runs have no record of them)"
    kept = [word for word in given if not (of_transfer(word) or of_transfer(word, NOT_OF_A_BAG))]
    if run.parts:
        words = ["student=bag", "method=supervised", *in_all_folds(run, kept), f"seed={run.seed}"]
        return shlex.join(["kd", "train", "-m", *words])
    place = run.directory.path.parent / "bag"
    words = ["student=bag", "method=supervised", *kept, f"seed={run.seed}", f"hydra.run.dir={place}"]
    return shlex.join(["kd", "train", *words])


def in_all_folds(run: Run, words: list[str]) -> list[str]:
    """Return the overrides of a run, with all of its folds where it was pooled."""
    if not run.parts:
        return words
    folds = ",".join(str(part.fold) for part in run.parts)
    return [f"data.fold={folds}" if word.lstrip("+").startswith("data.fold=") else word for word in words]


def of_transfer(override: str, parts: Sequence[str] = NOT_OF_A_BASELINE) -> bool:
    """Return whether the command for a baseline leaves out this override; ``@`` or ``/`` may follow a group's name.

    >>> [of_transfer(word) for word in ("balance/alpha=linear", "+student@peers.other=dan", "objective=latency")]
    [True, True, True]
    >>> of_transfer("student=dan")
    False
    """
    key = override.lstrip("+~").partition("=")[0]
    group, _, package = key.partition("@")
    return any(name.replace("/", ".").split(".")[0] in parts for name in (group, package)) or group in parts
