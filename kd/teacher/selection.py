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
        student: returns the logits of the current student for some row numbers.
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
    if options.rows is not None and options.rows > len(free):
        log.warning("selection.rows=%d is more than the %d rows without a label; all are kept", options.rows, len(free))
    logs = log_softmax(logits[free].astype(np.float64), axis=1)
    entropy, answers = -(np.exp(logs) * logs).sum(axis=1), logs.argmax(axis=1)
    chance = np.random.default_rng(seed).random(len(free))
    if options.by == "confident":
        score = entropy
    elif options.by == "uncertain":
        score = -entropy
    elif options.by == "disagreement":
        theirs = log_softmax(student(free).astype(np.float64), axis=1)
        score = -(np.exp(logs) * (logs - theirs)).sum(axis=1)
    else:
        score = chance
    order = np.lexsort((chance, score))
    if options.balanced:  # the best of each class, then the second of each, ...
        place = np.empty(len(free), np.int64)
        for answer in np.unique(answers):
            own = order[answers[order] == answer]
            place[own] = np.arange(len(own))
        order = np.lexsort((chance, score, place))
    kept = order[: options.rows]
    shares = ", ".join(f"{name} {int((answers[kept] == number).sum()):,}" for number, name in enumerate(label_names))
    log.info(
        "selection: %d of %d rows without a label, %s%s (%s); the mean entropy of the teacher's answers is %.3f, that "
        "of all %.3f",
        *(len(kept), len(free), options.by, ", balanced" if options.balanced else "", shares),
        *(entropy[kept].mean(), entropy.mean()),
    )
    return np.sort(np.concatenate([np.flatnonzero(labels != IGNORED_LABEL), free[kept]]))
