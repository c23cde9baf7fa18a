"""How much a test set can tell: intervals, paired tests, and what several comparisons at once allow. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import betaincinv, expit, ndtri

SMALLEST_P = 1e-12
"""What the sums below can resolve; smaller p-values are given as this."""


def accuracy_interval(correct: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of an accuracy.

    Args:
        correct: ``[N]`` bool, one a test row.
        confidence: coverage.

    Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953

    >>> [round(bound, 3) for bound in accuracy_interval(np.arange(100) < 90)]
    [0.826, 0.945]
    """
    rows, p, z = len(correct), float(correct.mean()), float(ndtri(0.5 + confidence / 2))
    centre = (p + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(p * (1 - p) / rows + z**2 / (4 * rows**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


@dataclass(frozen=True)
class PairedTest:
    """McNemar's exact test of two models on the same rows, and of two sets of seeds.

    Row i speaks with ``D_i``, the number of seeds in which the first model is right there less that in which the
    second is. If neither is better, the sign of each ``D_i`` is a fair coin, given its size: the exact distribution
    of the sum follows, and the p-value is twice its smaller tail. With one seed ``D_i`` is -1, 0 or 1, and this is
    McNemar's exact test. Rows are the units: the answers of several seeds to one row are not counted as
    independent, as pooling their discordant pairs would do. It tells whether other rows would show the same of
    *these* weights; the luck of the start is the bootstrap's part (`kd.report.bootstrap`).

    Args:
        sizes: ``[R]``, how many rows have ``|D_i|`` = 1, ..., R.
        total: sum of ``D_i``.
        rows: N.

    Source: McNemar 1947, https://doi.org/10.1007/BF02295996
    """

    sizes: tuple[int, ...]
    total: int
    rows: int

    @classmethod
    def of(cls, correct: np.ndarray, baseline: np.ndarray) -> PairedTest:
        """From ``[R, N]`` bool each (or ``[N]``), seeds and rows in the same order."""
        first, second = np.atleast_2d(correct), np.atleast_2d(baseline)
        net = first.sum(axis=0, dtype=int) - second.sum(axis=0, dtype=int)
        sizes = np.bincount(np.abs(net), minlength=len(first) + 1)[1:]
        return cls(tuple(map(int, sizes)), int(net.sum()), first.shape[1])

    @cached_property
    def p_value(self) -> float:
        """Two-sided.

        >>> PairedTest.of(np.arange(20) < 15, np.arange(20) < 8).p_value  # 7 rows won, none lost: 2 / 2^7
        0.015625
        """
        return float(np.clip(2 * min(self._tails(0.0)), SMALLEST_P, 1.0))

    def interval(self, level: float = 0.05) -> tuple[float, float]:
        """Bounds of the difference in accuracy at an error rate; they leave out 0 just when ``p_value < level``.

        The signs are tilted, ``P(D_i > 0) = expit(2 lean |D_i|)``, until the observed sum lies in a tail of
        ``level / 2``. With one seed that is Clopper and Pearson's interval for the share of discordant rows won.

        Source: Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404
        """
        if not self._largest:
            return 0.0, 0.0
        if len(self.sizes) == 1:  # the same in closed form
            won, lost = (self._largest + self.total) // 2, (self._largest - self.total) // 2
            low = betaincinv(won, lost + 1, level / 2) if won else 0.0
            high = betaincinv(won + 1, lost, 1 - level / 2) if lost else 1.0
            return tuple(float((2 * bound - 1) * self._largest / self.rows) for bound in (low, high))
        return self._bound(level, upper=False), self._bound(level, upper=True)

    @property
    def _largest(self) -> int:
        return sum(size * count for size, count in enumerate(self.sizes, start=1))

    def _mass(self, lean: float) -> np.ndarray:
        """Probability of each sum ``-largest, -largest + 2, ..., largest`` where signs lean to the first model."""
        points = 1 << int(self._largest).bit_length()  # more than largest + 1 values: nothing wraps around
        if points == 1:
            return np.ones(1)
        turn = np.exp(-2j * np.pi * np.arange(points // 2 + 1) / points)
        transform = np.ones_like(turn)
        for size, count in enumerate(self.sizes, start=1):
            if count:
                wins = expit(2 * size * lean)
                transform *= (1 - wins + wins * turn**size) ** count
        return np.fft.irfft(transform, points)[: self._largest + 1]

    def _tails(self, lean: float) -> tuple[float, float]:
        """Probability of a sum as large, and of one as small, as observed."""
        mass, place = self._mass(lean), (self._largest + self.total) // 2
        return float(mass[place:].sum()), float(mass[: place + 1].sum())

    def _expected(self, lean: float) -> float:
        """Of the sum."""
        return float(sum(size * count * np.tanh(size * lean) for size, count in enumerate(self.sizes, start=1)))

    def _bound(self, level: float, upper: bool) -> float:
        """Newton's steps on the logarithm of a tail, whose slope is its mean sum less the mean sum; else halving."""
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
    """Holm's step-down correction of ``M`` comparisons.

    Returns:
        the adjusted p-values ``[M]``, and the levels ``[M]`` at which each comparison was tested: ``level / (M - k)``
        for the one with ``k`` smaller p-values, and from the first that is not decided on, its level for all. An
        interval at that level leaves out 0 just when the adjusted p-value is below ``level``.

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
