"""How much a test set can tell: intervals and paired tests. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


def accuracy_interval(correct: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of an accuracy.

    Args:
        correct: ``[N]`` bool, one a test row.
        confidence: coverage.

    >>> [round(bound, 3) for bound in accuracy_interval(np.arange(100) < 90)]
    [0.826, 0.945]
    """
    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of one model less that of another on the same rows.

    Args:
        difference: in [-1, 1].
        low, high: its 95 % interval.
        p_value: McNemar's exact test, two-sided.
        won, lost: rows that only the first, only the second model has right.
    """

    difference: float
    low: float
    high: float
    p_value: float
    won: int
    lost: int

    @property
    def decided(self) -> bool:
        """Whether the test set can tell the two apart, at the 5 % level; then the interval leaves out 0."""
        return self.p_value < 0.05


def compare(correct: np.ndarray, baseline: np.ndarray, confidence: float = 0.95) -> PairedDifference:
    """The paired difference between two models on the same test rows.

    Given the rows on which just one of the two is right, who wins such a row is a binomial draw: its exact test
    is McNemar's, and Clopper and Pearson's interval for its probability, scaled to the test set, is the interval
    of the difference. Both stem from one distribution, so they never contradict each other.

    Args:
        correct, baseline: ``[N]`` bool, in the same order of rows.
        confidence: coverage of the interval.

    Source: McNemar 1947, https://doi.org/10.1007/BF02295996; Clopper and Pearson 1934,
    https://doi.org/10.1093/biomet/26.4.404

    >>> compare(np.array([True] * 8 + [False] * 2), np.array([True] * 2 + [False] * 8)).won
    6
    """
    won, lost = int((correct & ~baseline).sum()), int((~correct & baseline).sum())
    rows, discordant = len(correct), won + lost
    if discordant == 0:
        return PairedDifference(0.0, 0.0, 0.0, 1.0, 0, 0)
    test = binomtest(won, discordant)
    interval = test.proportion_ci(confidence, method="exact")
    low, high = ((2 * bound - 1) * discordant / rows for bound in (interval.low, interval.high))
    return PairedDifference((won - lost) / rows, float(low), float(high), float(test.pvalue), won, lost)
