"""Runs that differ in the seed alone are one arm of a study; arms find their matched baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kd.options.methods import BAG, CLOSED_FORM
from kd.report.runs import Run, figure
from kd.report.settings import OF_TRANSFER, of_own_vocabulary, of_transfer_set, root_of, target_of_student, whole

TITLES = {
    "gain": "gain of the teacher over supervised training",
    "bag": "difference from the bag of n-grams",
    "methods": "gain of another method over distillation",
    "embeddings": "gain of the teacher's embeddings over random ones",
    "peers": "gain of the peers over supervised training",
}
"""Families of comparisons: the name of their table's files, and its title."""
OVER_BASELINE = ("gain", "peers")
"""Families of comparisons with a supervised baseline."""


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
    def is_fitted(self) -> bool:
        """Whether its student is fitted in closed form, so that the seed has no effect."""
        return target_of_student(self.first.settings) in CLOSED_FORM

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @cached_property
    def scores(self) -> np.ndarray:
        """``[R]``, the metric of each run on the test rows."""
        return np.array([run.values.mean() for run in self.runs])

    @property
    def score(self) -> float:
        """The metric on the test rows, mean over seeds."""
        return float(self.scores.mean())

    @cached_property
    def validation(self) -> float | None:
        """The metric on the validation rows, mean over seeds; None where a run has no such figure."""
        found = [run.validation_score for run in self.runs]
        return None if None in found else mean(found)

    @property
    def teacher_score(self) -> float | None:
        """The metric of its runs' teacher on the test rows."""
        return mean(run.teacher_score for run in self.runs)

    @property
    def retained(self) -> float | None:
        """Its score, divided by its teacher's."""
        return self.score / self.teacher_score if self.teacher_score else None

    def mean(self, *keys: str) -> float | None:
        """Return the mean over seeds of a figure in ``metrics.json``; see `kd.report.runs.figure`."""
        return mean(figure(run.metrics, *keys) for run in self.runs)

    def run_of(self, seed: int) -> Run:
        return self.runs[self.seeds.index(seed) if seed in self.seeds or not self.is_fitted else 0]


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def deviation(values: np.ndarray) -> float | None:
    """Return the standard deviation over seeds (n - 1); None for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def arms(runs: list[Run]) -> list[Arm]:
    """Group the runs by setting, in the order of their names."""
    groups: dict[Hashable, dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run.method, key_of(run)][run.seed].append(run)
    members = [tuple(by_seed[seed][0] for seed in sorted(by_seed)) for by_seed in groups.values()]
    copies = [tuple(run for same in by_seed.values() for run in same[1:]) for by_seed in groups.values()]
    return sorted(map(Arm, labels(members), members, copies), key=lambda arm: arm.name)


def key_of(run: Run, read: Callable[[str], bool] = lambda key: True) -> frozenset[tuple[str, str]]:
    """Return the settings whose keys ``read`` accepts, for comparison."""
    return frozenset((key, repr(value)) for key, value in run.settings.items() if read(key))


def labels(groups: list[tuple[Run, ...]]) -> list[str]:
    """Name each arm; no two names are the same.

    Students that are fitted in closed form are named apart. They have other options and another tokenizer, which would
    make the names of all other arms longer.
    """
    fitted = [target_of_student(members[0].settings) in CLOSED_FORM for members in groups]
    parts = {kind: [group for group, own in zip(groups, fitted, strict=True) if own is kind] for kind in set(fitted)}
    names = {kind: iter(names_within(part, with_student=kind)) for kind, part in parts.items()}
    return [next(names[kind]) for kind in fitted]


def names_within(groups: list[tuple[Run, ...]], with_student: bool) -> list[str]:
    """Name each arm by its method and the settings in which these arms differ."""
    firsts = [members[0] for members in groups]
    values: dict[str, set[str]] = defaultdict(set)
    for run in firsts:
        for key, value in run.settings.items():
            values[key].add(repr(value))
    chosen = {key.split(".")[1] for key in values if key.startswith("choices.") and len(values[key]) > 1}
    chosen |= {"student"} if with_student and len(values["choices.student"]) > 1 else set()
    differing = sorted(key for key in values if len(values[key]) > 1 and root_of(key) not in chosen)
    differing = [key for key in differing if not (with_student and key == "choices.student")]
    if "transfer" in differing:  # whose sets make the training rows differ; `distinct` names the rows where needed
        differing = [key for key in differing if key != "data.rows"]
    of_method: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in firsts:
        for key in differing:
            of_method[run.method, key].add(repr(run.settings.get(key)))
    usual = usual_seeds([tuple(run.seed for run in members) for members in groups])
    names = []
    for members in groups:
        run, words = members[0], [members[0].method]
        words += [str(run.settings["choices.student"])] if with_student else []
        for key in differing:
            if key in run.settings and not implied_by_method(run, key, of_method[run.method, key]):
                value = run.settings[key]
                plain = key.startswith("choices.") or key in ("loss", "mapper", "transfer")
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


def distinct(names: list[str], firsts: list[Run]) -> list[str]:
    """Add the settings that differ, with their full keys and values, to names that are the same."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, run in zip(names, firsts, strict=True):
        groups[name].append(run.settings)
    found = []
    for name, run in zip(names, firsts, strict=True):
        keys = sorted({key for settings in groups[name] for key in settings})
        apart = [key for key in keys if len({repr(settings.get(key)) for settings in groups[name]}) > 1]
        found.append(" ".join([name, *(f"{key}={whole(run.settings[key])}" for key in apart if key in run.settings)]))
    return found


def usual_seeds(sets: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the seeds that most arms have; of several such sets the longest."""
    return max(sorted(set(sets)), key=lambda seeds: (sets.count(seeds), len(seeds)))


def implied_by_method(run: Run, key: str, values: set[str]) -> bool:
    """Return whether a name can leave out this setting: not set, or the same in all runs of the method.

    A transfer set is always named.
    """
    not_set = key.startswith("method.") and not run.settings[key]
    if key == "transfer":
        return run.settings[key] == "none"
    return root_of(key) in OF_TRANSFER and (not_set or len(values) == 1)


@dataclass(frozen=True, eq=False)
class Pair:
    """An arm against its match.

    Args:
        family: one of `TITLES`: the meaning of their difference.
        seeds: those that both have; runs are compared seed by seed. An arm without an effect of the seed has each.
    """

    family: str
    arm: Arm
    other: Arm

    @property
    def seeds(self) -> tuple[int, ...]:
        if self.other.is_fitted or self.arm.is_fitted:
            return self.arm.seeds if self.other.is_fitted else self.other.seeds
        return tuple(seed for seed in self.arm.seeds if seed in self.other.seeds)


def budget(run: Run, composed: bool = False) -> Hashable:
    """Return student, data and budget: what a run and its matched baseline have in common.

    A composition has no vocabulary to match.
    """
    own = lambda key: root_of(key) in OF_TRANSFER or (composed and of_own_vocabulary(key))  # noqa: E731
    return composed, key_of(run, lambda key: not own(key))


def tempered(run: Run, composed: bool) -> Hashable:
    """Return what two methods with a teacher must have in common to be compared."""
    return budget(run, composed), repr(run.settings.get("alpha")), repr(run.settings.get("temperature"))


def but_for_embeddings(run: Run, composed: bool) -> Hashable:
    """Return all settings but the student's initial embeddings; a composition has none and matches itself alone."""
    own = "choices.embeddings" in run.settings
    rest = key_of(run, lambda key: root_of(key) != "embeddings" and key != "choices.embeddings")
    return run.method, own, rest if own else id(run)


def matches(arms: Iterable[Arm], key: Callable[[Run, bool], Hashable]) -> Callable[[Arm], list[Arm]]:
    """Return a function that finds the given arms which have the same key as another arm.

    Args:
        arms: baselines, for example.
        key: of a run, as it is compared with a composition or with another run.
    """
    index: dict[Hashable, list[Arm]] = defaultdict(list)
    for arm in arms:
        for found in {key(arm.first, composed) for composed in (False, True)}:
            index[found].append(arm)
    return lambda arm: index.get(key(arm.first, arm.method == "composition"), [])


def baselines(arms: list[Arm]) -> Callable[[Arm], list[Arm]]:
    """Return a function that finds the supervised arms of the same student, data and budget as an arm.

    For an arm with a transfer set these have the words of the same set; if there are none, they have no set.
    """
    supervised = [arm for arm in arms if arm.method == "supervised"]
    with_words = matches(supervised, budget)
    without = matches([arm for arm in supervised if not arm.first.transfer_texts], but_for_transfer_set)
    return lambda arm: with_words(arm) or (without(arm) if arm.first.transfer_texts else [])


def but_for_transfer_set(run: Run, composed: bool) -> Hashable:
    """Return the `budget` without the transfer set, and the labelled rows."""
    own = lambda key: root_of(key) in OF_TRANSFER or (composed and of_own_vocabulary(key))  # noqa: E731
    return composed, run.labelled_rows, key_of(run, lambda key: not own(key) and not of_transfer_set(key))


def bags(arms: list[Arm]) -> list[Arm]:
    """Return the supervised bags of n-grams, the best by validation first."""
    found = [arm for arm in arms if arm.method == "supervised" and target_of_student(arm.first.settings) == BAG]
    return sorted(found, key=lambda arm: -(arm.validation or 0.0))


def bag_of(arm: Arm, bags: list[Arm]) -> list[Arm]:
    """Return the bag that an arm is compared with, one on the same rows if there is one; none for a fitted student."""
    rows = arm.first.settings.get("data.rows")
    same = [bag for bag in bags if bag.first.settings.get("data.rows") == rows]
    return [] if arm.is_fitted else (same or bags)[:1]


def pairs(arms: list[Arm]) -> list[Pair]:
    """Pair each arm with its matches: a baseline, a bag, distillation, or the same student with random embeddings."""
    of_words = bags(arms)
    supervised, distilled = baselines(arms), matches([arm for arm in arms if arm.method == "distillation"], tempered)
    random_start = matches([arm for arm in arms if arm.first.metrics["embeddings"] == "random"], but_for_embeddings)
    found = []
    for arm in arms:
        others: dict[str, list[Arm]] = {"bag": bag_of(arm, of_words)}
        if arm.method != "supervised":
            others["gain" if arm.first.environment["teacher"] else "peers"] = supervised(arm)
            if arm.method != "distillation":
                others["methods"] = distilled(arm)
        if arm.first.metrics["embeddings"] == "pca":
            others["embeddings"] = random_start(arm)
        made = (Pair(family, arm, other) for family, same in others.items() for other in same if other is not arm)
        found += [pair for pair in made if pair.seeds]
    return found
