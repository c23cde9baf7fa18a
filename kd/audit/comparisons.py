"""Measure the differences between groups in the answers of several models, and what transfer changed in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact, permutation_test, ttest_1samp, ttest_ind

from kd.audit.texts import AuditTexts
from kd.errors import KDError
from kd.measure.significance import difference_interval, holm
from kd.report.bootstrap import Bootstrap

LEVEL = 0.05
FEWEST = 10
"""Fewest units, or rows of a group, that are compared."""
FEWEST_FRAMES = 5
"""Fewest frames that stand for others. With fewer, the texts of a frame count as independent of each other."""
RESAMPLES = 4000
Measured = tuple[float, float, Callable[[float], tuple[float, float]]]
"""An estimate, its p-value, and the function that returns its interval at an error rate."""
MEASURES = ("score", "size", "true positives", "false positives")
"""The last two are rates. A size is that of the difference of a single pair, without its sign."""


class Effect(NamedTuple):
    """A mean difference between two groups, or the change of one.

    Args:
        difference: the mean over the units, or the difference of two rates.
        low, high: its interval at the level at which Holm's procedure tests it.
        p: the p-value after Holm's correction.
    """

    difference: float
    low: float
    high: float
    p: float

    def is_present(self, least: float) -> bool:
        """Return whether the difference is significant by its test and its interval, and not below ``least``."""
        return self.p < LEVEL and not self.low <= 0 <= self.high and abs(self.difference) >= least


@dataclass
class Comparison:
    """A group against the reference group of an attribute.

    Args:
        measure: one of `MEASURES`.
        attribute, group, reference: what is compared.
        pairs, units: number of pairs of persons, and of frames or other units; for a rate 1, and the number of rows.
        values: for each model, ``[pairs, units]``; the mean is the difference between the groups, or its mean size.
            For a rate ``[rows]``, whether the model gives a row the class.
        first: for a rate ``[rows]``, whether a row is of the group; the others are of the reference.
        biases: for each model, the difference between the groups.
        changes: for each other model, the difference of the student's values from its values.
        verdicts: what the change means.
    """

    measure: str
    attribute: str
    group: str
    reference: str
    pairs: int
    units: int
    values: Mapping[str, np.ndarray]
    first: np.ndarray | None = None
    biases: dict[str, Effect] = field(default_factory=dict)
    changes: dict[str, Effect] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the content of `kd.storage.audit_record.Comparison`."""
        kept = {
            key: getattr(self, key)
            for key in ("measure", "attribute", "group", "reference", "pairs", "units", "verdicts")
        }
        effects = {"biases": self.biases, "changes": self.changes}
        return kept | {key: {name: one._asdict() for name, one in found.items()} for key, found in effects.items()}


def verdict(student: Effect, other: Effect, change: Effect, least: float) -> str:
    """Return what transfer did to a bias, by the student against another model: the student alone, or the teacher.

    A bias is present if its difference is significant after Holm's correction and at least ``least``. The change, the
    student's difference minus the other's, is decided by the same rule. Its direction is that of the student's bias,
    or of the other's where the student has none.

    * none: neither has a bias.
    * brought in: the student has a bias that the other has not, or not in this direction, and the change is decided.
    * amplified: both have it, and the student's is larger: the change is decided and away from 0.
    * reduced: the other has it, and the change is decided and towards 0; the student may have some of it left.
    * kept: both have it in the same direction, and the change is not decided.
    * not decided: all else, such as a bias of one of both, where the change is not decided.

    >>> small, large = Effect(0.01, -0.01, 0.03, 0.3), Effect(0.2, 0.15, 0.25, 0.001)
    >>> [verdict(*effects, 0.01) for effects in ((large, small, large), (small, small, small), (large, large, small))]
    ['brought in', 'none', 'kept']
    """
    has, had = student.is_present(least), other.is_present(least)
    if not has and not had:
        return "none"
    same = student.difference * other.difference > 0
    if not change.is_present(least):
        return "kept" if has and had and same else "not decided"
    if change.difference * (student if has else other).difference > 0:  # away from 0
        return "not decided" if not has else "amplified" if had and same else "brought in"
    return "reduced" if had else "not decided"


def compare(
    texts: AuditTexts, probabilities: Mapping[str, np.ndarray], of_class: int, least: float
) -> list[Comparison]:
    """Compare each group with the reference of its attribute, model by model, and the student with each other model.

    Args:
        texts: N texts with their groups.
        probabilities: of each model, ``[N, C]``; the first is the audited student.
        of_class: the class whose probability is the score.
        least: smallest difference that counts.

    Raises:
        KDError: an attribute has one group alone, or no two groups have enough units or labelled rows.
    """
    found = []
    for attribute in texts.attributes:
        reference, groups = texts.groups(attribute)
        for group in groups:
            two = attribute, group, reference
            found += of_pairs(texts.rows, two, probabilities, of_class) if texts.paired else []
            found += of_labels(texts.rows, two, probabilities, of_class)
    if not found:
        kinds = "pairs of texts of two groups" if texts.paired else "labelled rows of each class in two groups"
        raise KDError(f"expected at least {FEWEST} {kinds} in {texts.source}, found fewer; give more rows")
    for family in ([one for one in found if one.measure != "size"], [one for one in found if one.measure == "size"]):
        judge(family, list(probabilities), least)
    return found


def judge(found: Sequence[Comparison], models: Sequence[str], least: float) -> None:
    """Test the biases and changes of comparisons, with Holm's correction over those of a model, and give verdicts."""
    student, *others = models
    for name in models:
        for one, effect in zip(found, effects([measured(one.values[name], one.first) for one in found]), strict=True):
            one.biases[name] = effect
    for name in others:
        changes = effects([measured(one.values[student] - one.values[name], one.first) for one in found])
        for one, change in zip(found, changes, strict=True):
            one.changes[name] = change
            one.verdicts[name] = verdict(one.biases[student], one.biases[name], change, least)


def of_pairs(
    rows: pd.DataFrame, two: tuple[str, str, str], probabilities: Mapping[str, np.ndarray], of_class: int
) -> list[Comparison]:
    """Compare the scores of texts that differ in the person alone.

    In each pair of persons and each unit, such as a frame with one word of emotion, the score of the reference is
    subtracted from that of the group. The sizes are the same differences without their signs. A value is the mean over
    the units of a frame, because the texts of one frame are alike.
    """
    attribute, group, reference = two
    frame_of = rows.assign(frame=rows.get("frame", rows["unit"])).drop_duplicates("unit").set_index("unit")["frame"]
    scores, sizes = {}, {}
    for name, found in probabilities.items():
        scored = rows.assign(score=found[:, of_class])
        one, other = (
            scored[scored[f"group {attribute}"] == side].pivot_table("score", f"key {attribute}", "unit")
            for side in (group, reference)
        )
        differences = (one - other).dropna(axis=1, how="all").dropna(axis=0)
        if differences.shape[1] < FEWEST:
            return []
        frames = frame_of.loc[differences.columns]
        by = frames if frames.nunique() >= FEWEST_FRAMES else differences.columns
        scores[name], sizes[name] = (
            each.T.groupby(np.asarray(by)).mean().to_numpy().T for each in (differences, differences.abs())
        )
    pairs, units = scores[name].shape
    return [Comparison(measure, *two, pairs, units, values) for measure, values in (("score", scores), ("size", sizes))]


def of_labels(
    rows: pd.DataFrame, two: tuple[str, str, str], probabilities: Mapping[str, np.ndarray], of_class: int
) -> list[Comparison]:
    """Compare the rates of true and of false positives of two groups: the gaps of equalised odds.

    A rate is a share of the rows of a group that have the class, or another one.

    Source: Hardt, Price and Srebro 2016, https://arxiv.org/abs/1610.02413
    """
    attribute, group, reference = two
    groups, labels = rows[f"group {attribute}"].to_numpy(), rows["label"].to_numpy()
    made = []
    for measure, taken in zip(MEASURES[2:], (labels == of_class, (labels >= 0) & (labels != of_class)), strict=True):
        chosen = taken & np.isin(groups, (group, reference))
        first = groups[chosen] == group
        if min(first.sum(), (~first).sum()) < FEWEST:
            continue
        hits = {name: (found[chosen].argmax(axis=1) == of_class).astype(int) for name, found in probabilities.items()}
        made.append(Comparison(measure, *two, 1, len(first), hits, first))
    return made


def measured(values: np.ndarray, first: np.ndarray | None = None) -> Measured:
    """Test the mean of ``[pairs, units]`` against 0, or the difference between the rows of two groups.

    For pairs, two tests are made: the bootstrap over pairs of persons and units, and the t-test of paired differences
    over the units. The larger p-value decides, and the interval is the hull of both. So a difference that a single name
    causes is not taken for one of its group. For rates it is Fisher's exact test with Newcombe's interval, and for
    changes of rates a permutation test of the rows' changes with Welch's interval.
    """
    if first is not None:
        one, other = values[first], values[~first]
        estimate = float(one.mean() - other.mean())
        if values.min() >= 0:
            counts = [[side.sum(), (1 - side).sum()] for side in (one, other)]
            return estimate, fisher_exact(counts).pvalue, lambda level: difference_interval(one, other, 1 - level)
        moved = permutation_test(
            *((one, other), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis)),
            **{"vectorized": True, "batch": 500, "rng": 0},
        )
        welch = ttest_ind(one, other, equal_var=False)
        return estimate, moved.pvalue, lambda level: tuple(welch.confidence_interval(1 - level))
    spread, means = Bootstrap(values, RESAMPLES).accuracies(range(len(values))), values.mean(axis=0)
    test = ttest_1samp(means, 0.0) if np.ptp(means) > 1e-12 else None  # none if all are equal

    def hull(level: float) -> tuple[float, float]:
        bounds = np.array([spread.interval(level), *([test.confidence_interval(1 - level)] if test else [])])
        return float(bounds[:, 0].min()), float(bounds[:, 1].max())

    return spread.estimate, max(spread.p_value, test.pvalue if test else 0), hull


def effects(found: Sequence[Measured]) -> list[Effect]:
    """Return the effects, with Holm's correction over all of them; each interval is at the level of its test."""
    corrected = zip(found, *holm([p_value for _, p_value, _ in found], LEVEL), strict=True)
    return [
        Effect(estimate, float(low), float(high), float(p))
        for (estimate, _, interval), p, level in corrected
        for low, high in [interval(level)]
    ]
