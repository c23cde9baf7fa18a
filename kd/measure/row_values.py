"""Write a metric as a mean over rows, so that the tests of a report apply to it. Needs no torch.

N rows, C labels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import softmax
from scipy.stats import rankdata

from kd.options.sections import Metric


def row_values(metric: Metric, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a value for each row, whose mean is the metric and whose spread is that of the metric.

    For accuracy it is whether the row is correct. For the others, it is the metric plus the influence of the row on it:
    the change of the metric if the row had a little more weight. The variance of the values divided by N is the
    variance of the metric in the limit of many rows. A class without a row is left out.

    Args:
        metric: name of the metric.
        logits: ``[N, C]``.
        labels: ``[N]``, gold.

    Returns:
        ``[N]``, bool for accuracy.

    Source: Hampel 1974 (influence), https://doi.org/10.1080/01621459.1974.10482962; DeLong et al. 1988 (AUROC),
    https://doi.org/10.2307/2531595

    >>> round(float(row_values("balanced_accuracy", np.eye(2)[[0, 0, 1, 1]], np.array([0, 0, 0, 1])).mean()), 4)
    0.8333
    """
    if metric == "accuracy":
        return logits.argmax(axis=1) == labels
    gold = labels[:, None] == np.arange(logits.shape[1])
    return BY_CLASS[metric](logits, gold).mean(axis=1)


def balanced_accuracy(logits: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return ``[N, K]``: the values of the recall of each class, for the K classes with a row."""
    present = np.flatnonzero(gold.any(axis=0))
    gold = gold[:, present]
    right = gold & (logits.argmax(axis=1)[:, None] == present)
    share = gold.mean(axis=0)
    recall = right.mean(axis=0) / share
    return recall + (right - recall * gold) / share


def macro_f1(logits: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return ``[N, K]``: the values of the F1 of each class that is a label or a prediction somewhere."""
    guess = logits.argmax(axis=1)[:, None] == np.arange(gold.shape[1])
    present = (gold | guess).any(axis=0)
    gold, guess = gold[:, present], guess[:, present]
    both, right = gold.astype(float) + guess, 2.0 * (gold & guess)
    f1 = right.mean(axis=0) / both.mean(axis=0)
    return f1 + (right - f1 * both) / both.mean(axis=0)


def auroc(logits: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return ``[N, K]``: the values of the AUROC of each class that some rows have and others have not."""
    scores, columns = softmax(logits.astype(float), axis=1), []
    for score, own in zip(scores.T, gold.T, strict=True):
        if own.all() or not own.any():
            continue
        # For each row: the share of the rows on the other side that it is ranked above, or below; ties count half.
        ranks, within = rankdata(score), np.empty(len(score))
        within[own], within[~own] = rankdata(score[own]), rankdata(score[~own])
        above = (ranks - within) / np.where(own, (~own).sum(), own.sum())
        placed = np.where(own, above, 1 - above)
        area = placed[own].mean()
        columns.append(area + (placed - area) / np.where(own, own.mean(), (~own).mean()))
    return np.stack(columns, axis=1) if columns else np.full((len(gold), 1), np.nan)


BY_CLASS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "auroc": auroc,
}
