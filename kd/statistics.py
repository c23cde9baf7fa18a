"""How much a test set can tell: intervals and paired tests. No torch.

Source: Berg-Kirkpatrick et al., An Empirical Investigation of Statistical Significance in NLP, 2012,
https://aclanthology.org/D12-1091
"""

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
        low, high: interval of the difference from a bootstrap over rows.
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
        """Whether the test set can tell the two apart, at the 5 % level."""
        return self.p_value < 0.05


def compare(correct: np.ndarray, baseline: np.ndarray, resamples: int = 10_000, seed: int = 0) -> PairedDifference:
    """The paired difference between two models on the same test rows.

    Args:
        correct, baseline: ``[N]`` bool, in the same order of rows.
        resamples: bootstrap resamples of the rows.

    >>> compare(np.array([True] * 8 + [False] * 2), np.array([True] * 2 + [False] * 8)).won
    6
    """
    won, lost = int((correct & ~baseline).sum()), int((~correct & baseline).sum())
    rows = len(correct)
    # A resample of rows is a draw of how many won, lost and tied rows it holds.
    draws = np.random.default_rng(seed).multinomial(rows, [won / rows, lost / rows, 1 - (won + lost) / rows], resamples)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / rows, [0.025, 0.975])
    p_value = binomtest(won, won + lost).pvalue if won + lost else 1.0
    return PairedDifference((won - lost) / rows, float(low), float(high), float(p_value), won, lost)
