"""Measure how well probabilities match accuracy, before and after temperature scaling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax

BINS = 15


class Calibration(NamedTuple):
    """Calibration on one split: expected calibration error, mean negative log-likelihood (nats), Brier score."""

    ece: float
    nll: float
    brier: float


def calibration(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> Calibration:
    """Measure the calibration of logits ``[N, C]`` divided by a temperature, against gold labels ``[N]``.

    Brier's score is ``mean_i sum_c (p_ic - [label_i = c])^2``, in [0, 2].

    Source: Brier 1950, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    values = calibration_values(logits, labels, temperature)
    return Calibration(**{name: float(column.mean()) for name, column in values.items()})


def calibration_values(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> dict[str, np.ndarray]:
    """Return values ``[N]`` by name whose means are the `calibration`, so that a bootstrap over rows can use them.

    The ECE is a sum of absolute values over bins. The sign of each bin is kept as it was found, so that the bootstrap
    does not add its own noise to the ECE.
    """
    logs = log_softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
    gold = labels[:, None] == np.arange(logs.shape[1])
    confidence = np.exp(logs.max(axis=1))
    gap, place = confidence - (logs.argmax(axis=1) == labels), bins(confidence, logs.shape[1])
    signs = np.sign(np.bincount(place, gap, minlength=BINS))
    return {"ece": signs[place] * gap, "nll": -logs[gold], "brier": ((np.exp(logs) - gold) ** 2).sum(axis=1)}


def bins(confidence: np.ndarray, classes: int) -> np.ndarray:
    """Return the bin of each confidence ``[N]``, of `BINS` equal ones over its range [1/C, 1]."""
    return ((confidence - 1 / classes) / (1 - 1 / classes) * BINS).astype(int).clip(0, BINS - 1)


def reliability(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Put rows into equal-width bins of the confidence in the predicted label, over its range [1/C, 1].

    Returns:
        ``[BINS, 3]``: mean confidence, accuracy, number of rows; 0 where a bin is empty.

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    logs = log_softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
    confidence, right = np.exp(logs.max(axis=1)), logs.argmax(axis=1) == labels
    place = bins(confidence, logs.shape[1])
    count = np.bincount(place, minlength=BINS)
    sums = (np.bincount(place, weights, minlength=BINS) for weights in (confidence, right))
    return np.stack([*(total / np.maximum(count, 1) for total in sums), count], axis=1)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature in [0.05, 20] with the lowest NLL on these rows; give validation rows.

    The NLL is convex in ``1 / temperature``, and its minimum is the root of its slope there.

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    logits = np.asarray(logits, dtype=np.float64)
    own = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        probabilities = np.exp(log_softmax(inverse * logits, axis=1))
        return float(((probabilities * logits).sum(axis=1) - own).mean())

    low, high = 1 / 20, 20.0
    if slope(low) >= 0 or slope(high) <= 0:  # the minimum lies at or beyond a bound
        return 1 / low if slope(low) >= 0 else 1 / high
    return float(1 / brentq(slope, low, high))
