"""Choose among the rows without a label after the teacher has labelled them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from scipy.special import log_softmax

from kd.contract import IGNORED_LABEL
from kd.errors import KDError
from kd.options.sections import Selection

log = logging.getLogger(__name__)


def chosen_rows(
    options: Selection,
    labels: np.ndarray,
    logits: np.ndarray,
    student: Callable[[np.ndarray], np.ndarray],
    label_names: list[str],
    seed: int,
) -> np.ndarray:
    """Return the numbers of the rows to train on: all with a label, and ``options.rows`` of the others.

    Args:
        options: how many rows to keep, and which.
        labels: ``[N]``, -100 for a row without one.
        logits: of the teacher, ``[N, C]``.
        student: returns the current student's logits for row numbers.
        label_names: for the log.
        seed: of a random choice, and among rows that are equal.

    Raises:
        KDError: every row has a label.
    """
    free = np.flatnonzero(labels == IGNORED_LABEL)
    if not len(free):
        raise KDError(
            f"selection.rows={options.rows} chooses among the rows without a label, found none; give some by "
            "data.unlabelled or transfer=[...], or set selection.rows=null"
        )
    if (options.rows or 0) > len(free):
        log.warning("selection.rows=%d is more than the %d rows without a label; all are kept", options.rows, len(free))
    logs = log_softmax(logits[free].astype(np.float64), axis=1)
    entropy, answers = -(np.exp(logs) * logs).sum(axis=1), logs.argmax(axis=1)
    chance = np.random.default_rng(seed).random(len(free))
    score = {"confident": entropy, "uncertain": -entropy, "random": chance}.get(options.by)
    if score is None:  # disagreement
        theirs = log_softmax(student(free).astype(np.float64), axis=1)
        score = -(np.exp(logs) * (logs - theirs)).sum(axis=1)
    order = np.lexsort((chance, score))
    if options.balanced:  # the best of each class, then the second of each, ...
        place = np.zeros(len(free), np.int64)
        for own in (order[answers[order] == answer] for answer in np.unique(answers)):
            place[own] = np.arange(len(own))
        order = np.lexsort((chance, score, place))
    kept = order[: options.rows]
    counts = zip(label_names, np.bincount(answers[kept], minlength=len(label_names)), strict=True)
    shares = ", ".join(f"{name} {count:,}" for name, count in counts)
    said = "selection: %d of %d rows without a label, %s (%s); their mean entropy at the teacher is %.3f, of all %.3f"
    how = options.by + ", balanced" * options.balanced
    log.info(said, len(kept), len(free), how, shares, entropy[kept].mean(), entropy.mean())
    return np.sort(np.concatenate([np.flatnonzero(labels != IGNORED_LABEL), free[kept]]))
