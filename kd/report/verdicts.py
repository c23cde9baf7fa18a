"""Compare arms seed by seed and row by row, and decide which differences are significant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kd.measure.power import Needed
from kd.measure.significance import PairedTest, accuracy_interval, holm
from kd.report.arms import Arm, Pair, deviation
from kd.report.bootstrap import Bootstrap, Spread

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Comparison:
    """The difference of an arm from its match in the metric, with two tests, of which the more cautious decides.

    `rows` is McNemar's exact test, in which a row is the unit: would other test rows show the difference? `spread` is
    the bootstrap over seeds and rows: would other seeds show it? A difference is decided where both tests are
    significant after Holm's correction over the comparisons of the table. For another metric than accuracy the
    bootstrap decides alone, over the values of `kd.measure.row_values`. The interval is the hull of both intervals at
    the level at which Holm tests this comparison, so that it excludes 0 exactly where the verdict is "better" or
    "worse".

    Args:
        pair: the two arms.
        values: ``[R, N]``, the difference for each seed and row.
        rows: McNemar's test; None for another metric than accuracy.
        spread: the bootstrap.
        seed_tests: McNemar's test of each seed by itself; none for another metric.
        std: standard deviation of the difference over seeds (n - 1).
        adjusted: the larger of the two p-values, after Holm's correction.
        level: the level at which Holm's procedure tested it.
    """

    pair: Pair
    values: np.ndarray
    rows: PairedTest | None
    spread: Spread
    seed_tests: tuple[PairedTest, ...]
    std: float | None
    adjusted: float = 1.0
    level: float = LEVEL

    @property
    def difference(self) -> float:
        return self.spread.estimate

    @property
    def p_value(self) -> float:
        """The p-value of the more cautious test, before Holm's correction."""
        return max(self.rows.p_value if self.rows else 0.0, self.spread.p_value)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The interval of the difference, in [-1, 1]."""
        bounds = [test.interval(self.level) for test in (self.rows, self.spread) if test]
        return max(-1.0, min(low for low, _ in bounds)), min(1.0, max(high for _, high in bounds))

    @property
    def decided(self) -> bool:
        return self.adjusted < LEVEL

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``not decided`` by these test rows and seeds."""
        if not self.decided:
            return "not decided"
        return "better" if self.difference > 0 else "worse"

    @cached_property
    def needed(self) -> str:
        """How many rows or seeds would decide a difference of this size; empty where it is decided or is 0."""
        return "" if self.decided else str(Needed(self.values, self.level))


class Judge:
    """The statistics of arms with outputs for the same test rows; each resample is drawn once for all arms."""

    def __init__(self, arms: list[Arm]):
        runs = [run for arm in arms for run in arm.runs]
        self.place = {id(run): number for number, run in enumerate(runs)}
        self.bootstrap = Bootstrap(np.stack([run.values for run in runs]))
        self._intervals: dict[str, tuple[float, float]] = {}

    def interval(self, arm: Arm) -> tuple[float, float]:
        """Return the 95 % interval of an arm's metric: Wilson's for the accuracy of one seed, else the bootstrap's."""
        if arm.name not in self._intervals:
            if len(arm.runs) == 1 and arm.first.values.dtype == bool:
                low, high = accuracy_interval(arm.first.values)
            elif id(arm.first) in self.place:
                low, high = self.bootstrap.accuracies(self._places(arm, arm.seeds)).interval()
            else:  # a teacher
                low, high = Bootstrap(arm.first.values[None]).accuracies([0]).interval()
            self._intervals[arm.name] = max(0.0, low), min(1.0, high)
        return self._intervals[arm.name]

    def compare(self, pairs: list[Pair]) -> list[Comparison]:
        """Compare each pair; Holm's correction is over all of them."""
        found = [self._one(pair) for pair in pairs]
        adjusted, levels = holm([one.p_value for one in found], LEVEL)
        return [
            replace(one, adjusted=float(p_value), level=float(level))
            for one, p_value, level in zip(found, adjusted, levels, strict=True)
        ]

    def _one(self, pair: Pair) -> Comparison:
        first, second = ([arm.run_of(seed) for seed in pair.seeds] for arm in (pair.arm, pair.other))
        values, baseline = (np.stack([run.values for run in runs]) for runs in (first, second))
        is_accuracy = values.dtype == bool
        return Comparison(
            pair,
            np.subtract(values, baseline, dtype=np.float32),
            PairedTest.of(values, baseline) if is_accuracy else None,
            self.bootstrap.differences(self._places(pair.arm, pair.seeds), self._places(pair.other, pair.seeds)),
            tuple(PairedTest.of(*two) for two in zip(values, baseline, strict=True)) if is_accuracy else (),
            deviation(values.mean(axis=1) - baseline.mean(axis=1)),
        )

    def _places(self, arm: Arm, seeds: tuple[int, ...]) -> list[int]:
        return [self.place[id(arm.run_of(seed))] for seed in seeds]


def best_by_validation(arms: list[Arm]) -> Arm | None:
    """Return the arm with the highest mean accuracy on validation, or None; the lower NLL breaks ties."""
    known = [
        (arm.validation, -(arm.mean("validation", "nll") or 0.0), arm) for arm in arms if arm.validation is not None
    ]
    return max(known, key=lambda one: one[:2])[-1] if known else None
