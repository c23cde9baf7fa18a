"""Say how many test rows or seeds would decide a difference of the size seen. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtrit

POWER = 0.8
"""The probability with which a difference of that size should be found."""
MOST_ROWS, MOST_SEEDS = 10_000_000, 1_000
"""Larger numbers are not named: nobody has so many."""


@dataclass(frozen=True, eq=False)
class Needed:
    """The number of rows, or of seeds, at which a paired test finds a difference of the size seen with `POWER`.

    The mean difference over R seeds and N rows has the variance ``s / R + r / N + b / (R N)``, where s, r and b are the
    variances between seeds, between rows and of both together. A test at the error rate ``level`` finds the difference
    d with the wanted probability if ``d >= t(level / 2) e0 + t(1 - POWER) e1``. ``e1`` is the standard error, and
    ``e0`` the one if there is no difference, ``e0^2 = e1^2 + d^2 / N``. With one seed, s is unknown and taken as 0;
    then ``N (e0^2)`` is the share of the rows that one of the two models has right and the other wrong (the discordant
    pairs), and this is the sample size of McNemar's test. With more seeds, t has Satterthwaite's degrees of freedom.

    Args:
        values: ``[R, N]``, the difference of the two models for each seed and row, such as -1, 0 or 1.
        level: two-sided error rate of the test.

    Source: Connor 1987, https://doi.org/10.2307/2531961 (McNemar's test); Satterthwaite 1946,
    https://doi.org/10.2307/3002019
    """

    values: np.ndarray
    level: float

    @cached_property
    def variances(self) -> tuple[float, float, float]:
        """s, r and b of the two-way table."""
        values = np.asarray(self.values, dtype=float)
        (seeds, rows), of_seed, of_row = values.shape, values.mean(axis=1), values.mean(axis=0)
        if seeds == 1:
            return 0.0, float(of_row.var()), 0.0
        residuals = values - of_seed[:, None] - of_row + values.mean()
        both = float((residuals**2).sum() / ((seeds - 1) * (rows - 1)))
        return max(0.0, float(of_seed.var(ddof=1)) - both / rows), max(0.0, of_row.var(ddof=1) - both / seeds), both

    @property
    def rows(self) -> int | None:
        """The number of rows with the given seeds; None if no number is enough."""
        seeds, given = self.values.shape
        more = np.unique(np.geomspace(given + 1, max(MOST_ROWS, given + 2), 4000).astype(int))
        found = self._is_found(np.full_like(more, seeds), more)
        return int(more[found.argmax()]) if found.any() else None

    @property
    def seeds(self) -> int | None:
        """The number of seeds on the given rows; None if no number is enough, or with one seed."""
        seeds, rows = self.values.shape
        more = np.arange(seeds + 1, MOST_SEEDS)
        found = self._is_found(more, np.full_like(more, rows))
        return int(more[found.argmax()]) if found.any() and seeds > 1 else None

    def __str__(self) -> str:
        """Say it in a few words; an empty text where no difference was seen."""
        if not self.values.mean():
            return ""
        rows, seeds = self.rows, self.seeds
        parts = [f"about {rounded(rows)} test rows"] if rows else []
        parts += [f"{'' if rows else 'about '}{rounded(seeds)} seeds"] if seeds else []
        if parts:
            return " or ".join(parts)
        if len(self.values) == 1:
            return f"more than {MOST_ROWS:,} test rows"
        return "more rows and more seeds together"

    def _is_found(self, seeds: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return for each number of seeds and rows whether the difference would be found."""
        of_seed, of_row, both = self.variances
        parts = of_seed / seeds + both / (seeds * rows), of_row / rows
        variance, difference = parts[0] + parts[1], abs(float(self.values.mean()))
        freedom = np.full(len(rows), 1e9)  # a normal distribution
        if len(self.values) > 1 and of_seed + both:
            freedom = np.minimum(variance**2 / (parts[0] ** 2 / (seeds - 1)), 1e9)
        under_null = np.sqrt(variance + difference**2 / rows)
        tails = stdtrit(freedom, 1 - self.level / 2), stdtrit(freedom, POWER)
        return difference >= tails[0] * under_null + tails[1] * np.sqrt(variance)


def rounded(count: int) -> str:
    """Round up to two digits.

    >>> [rounded(count) for count in (7, 83, 2251, 1_040_000)]
    ['7', '83', '2,300', '1,100,000']
    """
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // unit) * unit:,}"
