"""All figures of a data set with their intervals: alone, against the teacher, against the bag. Needs no torch.

N rows, C labels. The interval of an accuracy or of another share of rows is Wilson's. Other metrics are written as
means over rows (`kd.measure.row_values`), and their interval is the percentile bootstrap over rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from scipy.special import log_softmax

from kd.measure.row_values import row_values
from kd.measure.significance import PairedTest, accuracy_interval
from kd.options.sections import Metric
from kd.report.bootstrap import Bootstrap
from kd.report.calibration import calibration_values

RESAMPLES = 2000
Estimate = dict[str, float | None]
Logits = Callable[[list[str]], np.ndarray]
"""Returns the logits ``[N, C]`` of texts."""


def estimate(value: float, interval: tuple[float, float], low: float = -1.0, high: float = 1.0) -> Estimate:
    """Return a figure with its interval, cut at the bounds that the figure has."""
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None}
    bounds = np.clip(interval, low, high)
    return {"value": float(value), "low": float(bounds[0]), "high": float(bounds[1])}


def share(rows: np.ndarray) -> Estimate:
    """Return a share of rows ``[N]`` bool with Wilson's interval; no figure without rows."""
    return estimate(float(np.mean(rows)), accuracy_interval(rows)) if len(rows) else estimate(np.nan, (0.0, 0.0))


def means(columns: dict[str, np.ndarray], low: float = 0.0, high: float = np.inf) -> dict[str, Estimate]:
    """Return the mean of each column ``[N]`` with its bootstrap interval; all columns are resampled together."""
    known = {name: values for name, values in columns.items() if np.isfinite(values).all()}
    boot = Bootstrap(np.stack(list(known.values())), RESAMPLES)
    found = {name: estimate(np.nan, (0.0, 0.0)) for name in columns}
    for place, (name, values) in enumerate(known.items()):
        interval = boot.accuracies([place]).interval()
        found[name] = estimate(float(values.mean(dtype=np.float64)), interval, low, high)
    return found


def metrics(logits: np.ndarray, labels: np.ndarray, temperature: float | None) -> dict[str, Estimate]:
    """Return every metric; the calibration also with the logits divided by a temperature, as ``ece_scaled``."""
    names: tuple[Metric, ...] = get_args(Metric)
    by_row = {name: row_values(name, logits, labels) for name in names}
    shares = means({name: by_row[name] for name in names}, high=1.0)
    columns = calibration_values(logits, labels)
    if temperature is not None:
        scaled = calibration_values(logits, labels, temperature)
        columns |= {f"{name}_scaled": values for name, values in scaled.items()}
    return {**shares, "accuracy": share(by_row["accuracy"]), **means(columns)}


def confusion(gold: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    """Return ``[C, C]``: the number of rows by gold label and given label."""
    return np.bincount(gold * classes + given, minlength=classes**2).reshape(classes, classes)


def kappa(counts: np.ndarray) -> np.ndarray:
    """Return Cohen's kappa of tables of counts ``[..., C, C]``: agreement above that of chance.

    Source: Cohen 1960, https://doi.org/10.1177/001316446002000104
    """
    shares = counts / counts.sum(axis=(-2, -1), keepdims=True)
    same = np.trace(shares, axis1=-2, axis2=-1)
    chance = (shares.sum(axis=-1) * shares.sum(axis=-2)).sum(axis=-1)
    with np.errstate(invalid="ignore"):  # both give one label throughout: not defined
        return (same - chance) / (1 - chance)


def against_teacher(logits: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compare with the logits of a teacher ``[N, C]``.

    Probability loyalty of a row is 1 minus the square root of the Jensen-Shannon divergence (base 2) of both
    probabilities: 1 where they are equal, 0 where they have no label in common.

    Source: Xu et al. 2021, https://aclanthology.org/2021.emnlp-main.832
    """
    own, theirs = logits.argmax(axis=1), teacher.argmax(axis=1)
    logs, their_logs = (log_softmax(np.asarray(each, dtype=np.float64), axis=1) for each in (logits, teacher))
    values = {
        "kl": (np.exp(their_logs) * (their_logs - logs)).sum(axis=1),
        "loyalty": 1 - np.sqrt(divergence(logs, their_logs)),
    }
    counts = confusion(theirs, own, logits.shape[1])
    drawn = np.random.default_rng(0).multinomial(len(own), counts.ravel() / counts.sum(), size=RESAMPLES)
    resampled = kappa(drawn.reshape(-1, *counts.shape))
    bounds = np.nanquantile(resampled, (0.025, 0.975)) if np.isfinite(resampled).any() else (np.nan, np.nan)
    right, same = theirs == labels, own == theirs
    copied, new = same[~right], (own != labels)[right]
    return {
        "accuracy": float(right.mean()),
        "agreement": share(same),
        **means(values),
        "kappa": estimate(float(kappa(counts)), (float(bounds[0]), float(bounds[1]))),
        **{"copied": share(copied), "copied_rows": int(copied.sum()), "new": share(new), "new_rows": int(new.sum())},
    }


def divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence (base 2, in [0, 1]) of two tables of log-probabilities ``[N, C]``, by row.

    For rows that are almost equal, rounding makes it slightly negative, which `scipy` turns into NaN; here it is 0.
    """
    mean = np.logaddexp(first, second) - np.log(2)
    found = sum((np.exp(one) * (one - mean)).sum(axis=1) for one in (first, second)) / (2 * np.log(2))
    return np.clip(found, 0, 1)


def against_bag(logits: np.ndarray, bag: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compare the accuracy with that of the bag of n-grams, by McNemar's exact test on the rows."""
    right, theirs = (each.argmax(axis=1) == labels for each in (logits, bag))
    test = PairedTest.of(right, theirs)
    difference = estimate(float(right.mean() - theirs.mean()), test.interval())
    return {"accuracy": float(theirs.mean()), "difference": difference, "p_value": test.p_value}
