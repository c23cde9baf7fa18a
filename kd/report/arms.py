"""Runs that differ in the seed alone are one arm of a study; arms find their matched baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kd.report.runs import Run
from kd.report.settings import OF_TRANSFER, of_own_words

TITLES = (
    "the teacher brought, over the student alone",
    "another way brought, over distillation",
    "the teacher's word table brought",
    "its peers brought, over the student alone",
)

Key = frozenset[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class Arm:
    """One setting over its seeds.

    Args:
        name: its way, and what tells it from the others.
        runs: one a seed, seeds rising.
        copies: further runs of the same setting and seed.
    """

    name: str
    runs: tuple[Run, ...]
    copies: tuple[Run, ...] = ()

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def way(self) -> str:
        return self.first.way

    @property
    def supervised(self) -> bool:
        return self.first.supervised

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @cached_property
    def correct(self) -> np.ndarray:
        """``[R, N]`` bool on the test rows."""
        return np.stack([run.test.correct for run in self.runs])

    @cached_property
    def accuracies(self) -> np.ndarray:
        """``[R]`` on the test rows."""
        return self.correct.mean(axis=1)

    @cached_property
    def validation(self) -> np.ndarray | None:
        """``[R]``, accuracy on the validation rows; None where a run does not tell."""
        found = [run.metrics.get("validation", {}).get("accuracy") for run in self.runs]
        return None if None in found else np.array(found, dtype=float)

    def over_seeds(self, figure: Callable[[Run], float | None]) -> np.ndarray:
        """A figure of each run, without those that do not have it."""
        return np.array([value for run in self.runs if (value := figure(run)) is not None], dtype=float)

    def run_of(self, seed: int) -> Run:
        return self.runs[self.seeds.index(seed)]


def deviation(values: np.ndarray) -> float | None:
    """Standard deviation over seeds (n - 1); None of one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def arms(runs: list[Run]) -> list[Arm]:
    """The runs by setting, in the order of their names."""
    groups: dict[Hashable, dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run.metrics["method"], key_of(run, lambda key: key != "seed")][run.seed].append(run)
    found = [(tuple(by_seed[seed][0] for seed in sorted(by_seed)), by_seed) for by_seed in groups.values()]
    names = labels([members for members, _ in found])
    made = [
        Arm(name, members, tuple(run for same in by_seed.values() for run in same[1:]))
        for name, (members, by_seed) in zip(names, found, strict=True)
    ]
    return sorted(made, key=lambda arm: arm.name)


def key_of(run: Run, read: Callable[[str], bool]) -> Key:
    """The settings that are read, for comparison."""
    return frozenset((key, repr(value)) for key, value in run.settings.items() if read(key))


def labels(groups: list[tuple[Run, ...]]) -> list[str]:
    """A name for each arm: its way, and every setting in which the runs of its kind differ from it or each other."""
    firsts = [members[0] for members in groups]
    keys = {key for run in firsts for key in run.settings if key != "seed"}
    values = {key: {repr(run.settings[key]) for run in firsts if key in run.settings} for key in keys}
    by_name = {key.split(".")[1] for key in keys if key.startswith("choices.") and len(values[key]) > 1}
    differing = sorted(key for key in keys if len(values[key]) > 1 and key.split(".")[0] not in by_name)
    of_way: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in firsts:
        for key in differing:
            of_way[run.way, key].add(repr(run.settings.get(key)))
    usual = usual_seeds([tuple(run.seed for run in members) for members in groups])
    names = []
    for members in groups:
        run, words = members[0], [members[0].way]
        for key in differing:
            if key in run.settings and not told_by_the_way(run, key, of_way[run.way, key]):
                value = run.settings[key]
                plain = key.startswith("choices.") or key in ("loss", "mapper")
                words.append(str(value) if plain else f"{key.split('.')[-1]}={value}")
        if (seeds := tuple(member.seed for member in members)) != usual:
            words.append("seed=" + ",".join(map(str, seeds)))
        names.append(" ".join(words))
    return names


def usual_seeds(sets: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The seeds that most arms have; of several such sets the longest."""
    return max(sorted(set(sets)), key=lambda seeds: (sets.count(seeds), len(seeds)))


def told_by_the_way(run: Run, key: str, values: set[str]) -> bool:
    """Whether all runs of this way have the same value of what belongs to transfer: the name need not say it."""
    if key.split(".")[0] not in OF_TRANSFER:
        return False
    if key.startswith("method.") and not run.settings[key]:  # an option that nobody asked for
        return True
    return len(values) == 1


@dataclass(frozen=True, eq=False)
class Pair:
    """An arm against its match.

    Args:
        title: one of `TITLES`: what their difference tells.
        seeds: those that both have; runs are compared seed by seed.
    """

    title: str
    arm: Arm
    other: Arm

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(seed for seed in self.arm.seeds if seed in self.other.seeds)


def not_of_transfer(key: str) -> bool:
    return key != "seed" and key.split(".")[0] not in OF_TRANSFER


def budget(run: Run, with_words: bool = True) -> Key:
    """Student, data and budget: what a run and its matched baseline have in common."""
    return key_of(run, lambda key: not_of_transfer(key) and (with_words or not of_own_words(key)))


Index = dict[Hashable, list[Arm]]


def baselines(arm: Arm, index: Index) -> list[Arm]:
    """The supervised arms of the same student, data and budget; a composition has no words of its own to match."""
    return index.get((arm.way == "mapped", budget(arm.first, arm.way != "mapped")), [])


def baseline_index(arms: list[Arm]) -> Index:
    """Supervised arms by what `baselines` looks for."""
    found: dict[Hashable, list[Arm]] = defaultdict(list)
    for arm in arms:
        if arm.supervised:
            for mapped in (False, True):
                found[mapped, budget(arm.first, not mapped)].append(arm)
    return found


def pairs(arms: list[Arm]) -> list[Pair]:
    """What transfer brought, what another way of it brought, and what the start brought: each against its match."""
    index, distilled, random_start = baseline_index(arms), defaultdict(list), defaultdict(list)
    for arm in arms:
        if arm.way == "distilled":
            for mapped in (False, True):
                distilled[mapped, tempered(arm.first, not mapped)].append(arm)
        if arm.first.metrics["embeddings"] == "random":
            random_start[but_for_the_start(arm.first)].append(arm)
    found = []
    for arm in arms:
        if arm.supervised:
            others = {}
        else:
            title = TITLES[0] if arm.first.environment["teacher"] else TITLES[3]
            others = {title: baselines(arm, index)}
            if arm.way != "distilled":
                others[TITLES[1]] = distilled.get((arm.way == "mapped", tempered(arm.first, arm.way != "mapped")), [])
        if arm.first.metrics["embeddings"] == "pca":
            others[TITLES[2]] = random_start.get(but_for_the_start(arm.first), [])
        made = (Pair(title, arm, other) for title, matches in others.items() for other in matches if other is not arm)
        found += [pair for pair in made if pair.seeds]
    return found


def tempered(run: Run, with_words: bool) -> tuple[Any, ...]:
    """What two ways of transfer have in common that are compared."""
    return budget(run, with_words), repr(run.settings.get("alpha")), repr(run.settings.get("temperature"))


def but_for_the_start(run: Run) -> tuple[Any, ...]:
    """All settings but the student's word table."""
    apart = lambda key: key.split(".")[0] == "embeddings" or key == "choices.embeddings" or key == "seed"  # noqa: E731
    words = "choices.embeddings" in run.settings  # a composition has none
    return run.way, words, key_of(run, lambda key: not apart(key)) if words else id(run)
