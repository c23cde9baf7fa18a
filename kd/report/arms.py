"""Runs that differ in the seed alone are one arm of a study; arms find their matched baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kd.report.runs import Run
from kd.report.settings import OF_TRANSFER, of_own_vocabulary, root_of, whole

TITLES = (
    "gain of the teacher over supervised training",
    "gain of another method over distillation",
    "gain of the teacher's embeddings over random ones",
    "gain of the peers over supervised training",
)
OVER_BASELINE = (TITLES[0], TITLES[3])
"""Comparisons with a supervised baseline."""

Key = frozenset[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class Arm:
    """One setting over its seeds.

    Args:
        name: its method, and the settings that differ from those of other arms.
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
    def method(self) -> str:
        return self.first.method

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
        """``[R]``, accuracy on the validation rows; None where a run has no such figure."""
        found = [run.metrics.get("validation", {}).get("accuracy") for run in self.runs]
        return None if None in found else np.array(found, dtype=float)

    def over_seeds(self, figure: Callable[[Run], float | None]) -> np.ndarray:
        """Return a figure of each run, without those that do not have it."""
        return np.array([value for run in self.runs if (value := figure(run)) is not None], dtype=float)

    def run_of(self, seed: int) -> Run:
        return self.runs[self.seeds.index(seed)]


def deviation(values: np.ndarray) -> float | None:
    """Return the standard deviation over seeds (n - 1); None for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def arms(runs: list[Run]) -> list[Arm]:
    """Group the runs by setting, in the order of their names."""
    groups: dict[Hashable, dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run.method, key_of(run, lambda key: key != "seed")][run.seed].append(run)
    found = [(tuple(by_seed[seed][0] for seed in sorted(by_seed)), by_seed) for by_seed in groups.values()]
    names = labels([members for members, _ in found])
    made = [
        Arm(name, members, tuple(run for same in by_seed.values() for run in same[1:]))
        for name, (members, by_seed) in zip(names, found, strict=True)
    ]
    return sorted(made, key=lambda arm: arm.name)


def key_of(run: Run, read: Callable[[str], bool]) -> Key:
    """Return the settings whose keys ``read`` accepts, for comparison."""
    return frozenset((key, repr(value)) for key, value in run.settings.items() if read(key))


def labels(groups: list[tuple[Run, ...]]) -> list[str]:
    """Name each arm by its method and the settings in which the arms differ; no two names are the same."""
    firsts = [members[0] for members in groups]
    values = values_of(firsts)
    chosen = {key.split(".")[1] for key in values if key.startswith("choices.") and len(values[key]) > 1}
    differing = sorted(key for key in values if len(values[key]) > 1 and root_of(key) not in chosen)
    of_method: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in firsts:
        for key in differing:
            of_method[run.method, key].add(repr(run.settings.get(key)))
    usual = usual_seeds([tuple(run.seed for run in members) for members in groups])
    names = []
    for members in groups:
        run, words = members[0], [members[0].method]
        for key in differing:
            if key in run.settings and not implied_by_method(run, key, of_method[run.method, key]):
                value = run.settings[key]
                plain = key.startswith("choices.") or key in ("loss", "mapper")
                words.append(str(value) if plain else f"{short_key(key)}={value}")
        if (seeds := tuple(member.seed for member in members)) != usual:
            words.append("seed=" + ",".join(map(str, seeds)))
        names.append(" ".join(words))
    return distinct(names, firsts)


def short_key(key: str) -> str:
    """Shorten a key for a name.

    >>> [short_key(key) for key in ("optim.optimizer.lr", "loss.hint.weight", "cache.use")]
    ['lr', 'hint.weight', 'cache']
    """
    return key.removeprefix("loss.") if root_of(key) == "loss" else key.removesuffix(".use").rpartition(".")[2]


def values_of(runs: list[Run]) -> dict[str, set[str]]:
    """Collect the values of each setting but the seed."""
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for key, value in run.settings.items():
            if key != "seed":
                found[key].add(repr(value))
    return found


def distinct(names: list[str], firsts: list[Run]) -> list[str]:
    """Add the settings that differ, with their full keys and values, to names that are the same."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for name, run in zip(names, firsts, strict=True):
        groups[name].append(run)
    found = []
    for name, run in zip(names, firsts, strict=True):
        same = groups[name]
        keys = sorted({key for other in same for key in other.settings if key != "seed"}) if len(same) > 1 else ()
        apart = [key for key in keys if len({repr(other.settings.get(key)) for other in same}) > 1]
        found.append(" ".join([name, *(f"{key}={whole(run.settings[key])}" for key in apart if key in run.settings)]))
    return found


def usual_seeds(sets: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the seeds that most arms have; of several such sets the longest."""
    return max(sorted(set(sets)), key=lambda seeds: (sets.count(seeds), len(seeds)))


def implied_by_method(run: Run, key: str, values: set[str]) -> bool:
    """Whether a name need not have this setting: it is of the method, and all runs of the method have one value."""
    if root_of(key) not in OF_TRANSFER:
        return False
    if key.startswith("method.") and not run.settings[key]:  # an option that was not set
        return True
    return len(values) == 1


@dataclass(frozen=True, eq=False)
class Pair:
    """An arm against its match.

    Args:
        title: one of `TITLES`: the meaning of their difference.
        seeds: those that both have; runs are compared seed by seed.
    """

    title: str
    arm: Arm
    other: Arm

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(seed for seed in self.arm.seeds if seed in self.other.seeds)


def not_of_transfer(key: str) -> bool:
    return key != "seed" and root_of(key) not in OF_TRANSFER


def budget(run: Run, with_vocabulary: bool = True) -> Key:
    """Return student, data and budget: what a run and its matched baseline have in common."""
    return key_of(run, lambda key: not_of_transfer(key) and (with_vocabulary or not of_own_vocabulary(key)))


Index = dict[Hashable, list[Arm]]


def baselines(arm: Arm, index: Index) -> list[Arm]:
    """Return the supervised arms of the same student, data and budget; a composition has no vocabulary to match."""
    composed = arm.method == "composition"
    return index.get((composed, budget(arm.first, not composed)), [])


def baseline_index(arms: list[Arm]) -> Index:
    """Index the supervised arms by the keys that `baselines` uses."""
    found: dict[Hashable, list[Arm]] = defaultdict(list)
    for arm in arms:
        if arm.supervised:
            for composed in (False, True):
                found[composed, budget(arm.first, not composed)].append(arm)
    return found


def pairs(arms: list[Arm]) -> list[Pair]:
    """Pair each arm with its matches: a baseline, distillation, or the same student with random embeddings."""
    index, distilled, random_start = baseline_index(arms), defaultdict(list), defaultdict(list)
    for arm in arms:
        if arm.method == "distillation":
            for composed in (False, True):
                distilled[composed, tempered(arm.first, not composed)].append(arm)
        if arm.first.metrics["embeddings"] == "random":
            random_start[but_for_embeddings(arm.first)].append(arm)
    found = []
    for arm in arms:
        others, composed = {}, arm.method == "composition"
        if not arm.supervised:
            others[TITLES[0] if arm.first.environment["teacher"] else TITLES[3]] = baselines(arm, index)
            if arm.method != "distillation":
                others[TITLES[1]] = distilled.get((composed, tempered(arm.first, not composed)), [])
        if arm.first.metrics["embeddings"] == "pca":
            others[TITLES[2]] = random_start.get(but_for_embeddings(arm.first), [])
        made = (Pair(title, arm, other) for title, matches in others.items() for other in matches if other is not arm)
        found += [pair for pair in made if pair.seeds]
    return found


def tempered(run: Run, with_vocabulary: bool) -> tuple[Any, ...]:
    """Return what two methods with a teacher must have in common to be compared."""
    return budget(run, with_vocabulary), repr(run.settings.get("alpha")), repr(run.settings.get("temperature"))


def but_for_embeddings(run: Run) -> tuple[Any, ...]:
    """Return all settings but the student's initial embeddings; a composition has none and matches itself alone."""
    own = "choices.embeddings" in run.settings
    rest = key_of(run, lambda key: root_of(key) not in ("embeddings", "seed") and key != "choices.embeddings")
    return run.method, own, rest if own else id(run)
