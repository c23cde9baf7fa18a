"""Intervals and paired tests on a test set, and the correction for several comparisons. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import betaincinv, expit
from scipy.stats import binomtest

SMALLEST_P = 1e-12
"""The resolution of the sums below; smaller p-values are given as this."""


def accuracy_interval(correct: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of an accuracy from ``[N]`` bool, one a test row.

    Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953

    >>> [round(bound, 3) for bound in accuracy_interval(np.arange(100) < 90)]
    [0.826, 0.945]
    """
    found = binomtest(int(np.sum(correct)), len(correct)).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def difference_interval(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Return Newcombe's interval of the first accuracy minus the second, of different rows, from ``[N]`` bool each.

    Source: Newcombe 1998, method 10, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I

    >>> [round(bound, 4) for bound in difference_interval(np.arange(70) < 56, np.arange(80) < 48)]
    [0.0524, 0.3339]
    """
    one, other = float(np.mean(first)), float(np.mean(second))
    (low, high), (other_low, other_high) = (accuracy_interval(rows, confidence) for rows in (first, second))
    down, up = np.hypot(one - low, other_high - other), np.hypot(high - one, other - other_low)
    return float(one - other - down), float(one - other + up)


@dataclass(frozen=True)
class PairedTest:
    """McNemar's exact test of two models on the same rows, and of two sets of seeds.

    ``D_i`` of row i is the number of seeds in which the first model is right, minus that in which the second is
    right. Under the null hypothesis, given its size, the sign of each ``D_i`` is a fair coin. The exact distribution
    of the sum follows, and the p-value is twice its smaller tail. With one seed ``D_i`` is -1, 0 or 1, and this is
    McNemar's exact test. Rows are the units: the outputs of several seeds for one row are not counted as
    independent, as pooling their discordant pairs would do. The test is about other rows with *these* weights; the
    variation between seeds is measured by the bootstrap (`kd.report.bootstrap`).

    Args:
        sizes: ``[R]``, number of rows with ``|D_i|`` = 1, ..., R.
        total: sum of ``D_i``.
        rows: N.

    Source: McNemar 1947, https://doi.org/10.1007/BF02295996
    """

    sizes: tuple[int, ...]
    total: int
    rows: int

    @classmethod
    def of(cls, correct: np.ndarray, baseline: np.ndarray) -> PairedTest:
        """Count from ``[R, N]`` bool each (or ``[N]``), with seeds and rows in the same order."""
        first, second = np.atleast_2d(correct), np.atleast_2d(baseline)
        net = first.sum(axis=0, dtype=int) - second.sum(axis=0, dtype=int)
        sizes = np.bincount(np.abs(net), minlength=len(first) + 1)[1:]
        return cls(tuple(map(int, sizes)), int(net.sum()), first.shape[1])

    @cached_property
    def p_value(self) -> float:
        """The two-sided p-value.

        >>> PairedTest.of(np.arange(20) < 15, np.arange(20) < 8).p_value  # 7 rows won, none lost: 2 / 2^7
        0.015625
        """
        mass, place = self._mass(0.0), (self._largest + self.total) // 2
        tail = min(float(mass[place:].sum()), float(mass[: place + 1].sum()))
        return float(np.clip(2 * tail, SMALLEST_P, 1.0))

    def interval(self, level: float = 0.05) -> tuple[float, float]:
        """Return bounds of the difference in accuracy at an error rate; they exclude 0 if and only if p < ``level``.

        The signs are tilted, ``P(D_i > 0) = expit(2 lean |D_i|)``, until the observed sum lies in a tail of
        ``level / 2``. With one seed that is Clopper and Pearson's interval for the share of discordant rows won.

        Source: Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404
        """
        if not self._largest:
            return 0.0, 0.0
        if len(self.sizes) == 1:  # the closed form, far faster than `_bound` and than scipy's binomtest
            won, lost = (self._largest + self.total) // 2, (self._largest - self.total) // 2
            low = betaincinv(won, lost + 1, level / 2) if won else 0.0
            high = betaincinv(won + 1, lost, 1 - level / 2) if lost else 1.0
            low, high = ((2 * bound - 1) * self._largest / self.rows for bound in (low, high))
            return float(low), float(high)
        return self._bound(level, upper=False), self._bound(level, upper=True)

    @property
    def _largest(self) -> int:
        return sum(size * count for size, count in enumerate(self.sizes, start=1))

    def _mass(self, lean: float) -> np.ndarray:
        """Return the probability of each sum ``-largest, -largest + 2, ..., largest`` for signs tilted by ``lean``."""
        points = 1 << int(self._largest).bit_length()  # more than largest + 1 values, so that none wraps around
        if points == 1:
            return np.ones(1)
        turn = np.exp(-2j * np.pi * np.arange(points // 2 + 1) / points)
        transform = np.ones_like(turn)
        for size, count in enumerate(self.sizes, start=1):
            if count:
                wins = expit(2 * size * lean)
                transform *= (1 - wins + wins * turn**size) ** count
        return np.fft.irfft(transform, points)[: self._largest + 1]

    def _expected(self, lean: float) -> float:
        """Return the expected sum."""
        return float(sum(size * count * np.tanh(size * lean) for size, count in enumerate(self.sizes, start=1)))

    def _bound(self, level: float, upper: bool) -> float:
        """Find the bound by Newton's method on the logarithm of a tail, or by halving.

        The slope of the logarithm is the mean sum within the tail minus the mean of all sums.
        """
        scale = len(self.sizes) * self.rows
        if abs(self.total) == self._largest and (self.total > 0) == upper:
            return self.total / scale
        place, sums = (self._largest + self.total) // 2, np.arange(-self._largest, self._largest + 1, 2)
        tail = slice(None, place + 1) if upper else slice(place, None)
        low, high = -16.0, 16.0
        lean = float(np.arctanh(np.clip(self.total / self._largest, -0.99, 0.99)))
        for _ in range(60):
            mass = self._mass(lean)[tail]
            share = float(mass.sum())
            # The upper tail rises with the lean, the lower one falls.
            low, high = (lean, high) if (share > level / 2) == upper else (low, lean)
            step = np.inf
            if share > 1e-13 and (slope := float(mass @ sums[tail]) / share - self._expected(lean)):
                step = np.log(level / 2 / share) / slope
            following = lean + step if low < lean + step < high else (low + high) / 2
            if abs(following - lean) < 1e-10:
                break
            lean = following
        return self._expected(lean) / scale


def holm(p_values: Sequence[float], level: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Apply Holm's step-down correction to ``M`` comparisons.

    Returns:
        the adjusted p-values ``[M]``, and the level ``[M]`` at which each comparison was tested: ``level / (M - k)``
        for the one with ``k`` smaller p-values; the first that is not significant gives its level to all that follow.
        An interval at that level excludes 0 if and only if the adjusted p-value is below ``level``.

    Source: Holm 1979, https://www.jstor.org/stable/4615733

    >>> [list(map(float, found.round(4))) for found in holm([0.01, 0.04, 0.03])]
    [[0.03, 0.06, 0.06], [0.0167, 0.025, 0.025]]
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    divisors = len(values) - np.arange(len(values))
    steps = np.maximum.accumulate(np.minimum(1.0, values[order] * divisors))
    stop = int(np.argmax(steps >= level)) if (steps >= level).any() else len(values)
    tested = level / divisors[np.minimum(np.arange(len(values)), stop)] if len(values) else divisors
    adjusted, levels = np.empty_like(values), np.empty_like(values)
    adjusted[order], levels[order] = steps, tested
    return adjusted, levels
