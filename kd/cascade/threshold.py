"""Choose the threshold of a cascade, so that it agrees with its teacher with a stated probability. Needs no torch.

Learn then Test (Angelopoulos et al. 2021, https://arxiv.org/abs/2110.01052): each threshold is a hypothesis "the
cascade differs from its teacher too often". The hypotheses are tested from the strictest threshold to the loosest
(fixed-sequence testing), each by the exact binomial tail, until one is not rejected. The last that was rejected is
chosen. No correction for the number of thresholds is needed, because their order is fixed before the rows are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax
from scipy.stats import binom, binomtest

from kd.errors import KDError

NOBODY = math.inf
"""The threshold at which the teacher answers every text."""


@dataclass(frozen=True)
class Outcomes:
    """What S students and their teacher answer to N texts.

    Args:
        confidences: ``[S, N]``, the students' probabilities of their own answers.
        answers: ``[S + 1, N]``, label numbers; the last row is the teacher's.
        labels: ``[N]``, gold; -100 for a text without a label.
        classes: number of labels.
    """

    confidences: np.ndarray
    answers: np.ndarray
    labels: np.ndarray
    classes: int

    @property
    def teacher(self) -> np.ndarray:
        return self.answers[-1]

    def take(self, rows: np.ndarray) -> Outcomes:
        """Return some of the texts, by their numbers or a mask."""
        return Outcomes(self.confidences[:, rows], self.answers[:, rows], self.labels[rows], self.classes)

    def answered_by(self, threshold: float) -> np.ndarray:
        """Return ``[N]``, the number of the first student that is sure enough, S for the teacher."""
        return np.vstack([self.confidences >= threshold, np.ones(len(self.labels), dtype=bool)]).argmax(axis=0)

    def answered(self, threshold: float) -> np.ndarray:
        """Return ``[N]``, the answers of the cascade."""
        return self.answers[self.answered_by(threshold), np.arange(len(self.labels))]

    def differing(self, threshold: float) -> int:
        """Count the texts on which the cascade and the teacher differ."""
        return int((self.answered(threshold) != self.teacher).sum())


def confidence_of(logits: np.ndarray) -> np.ndarray:
    """Return ``[N]``, the largest probability of each row of logits ``[N, C]``."""
    return softmax(np.asarray(logits, dtype=np.float64), axis=1).max(axis=1)


def thresholds(classes: int) -> np.ndarray:
    """Return the tested thresholds, strictest first, in equal steps of the log-odds down to ``1 / classes``."""
    return expit(np.linspace(14, -math.log(classes - 1), 400)) * (1 - 1e-9)  # the last admits every row


def choose(outcomes: Outcomes, target: float, confidence: float) -> float:
    """Return the loosest threshold at which the agreement with the teacher is certified.

    With a probability of at least ``confidence`` over the choice of the rows, the cascade agrees with its teacher on at
    least ``target`` of all texts from which the rows were drawn. The rows must not have been used to train or to choose
    the students.

    Returns:
        the threshold; `NOBODY` where no threshold at which a student answers a text is certified.

    Raises:
        KDError: with so few rows, no cascade could be certified.
    """
    rows = len(outcomes.labels)
    allowed = np.flatnonzero(binom.cdf(np.arange(rows + 1), rows, 1 - target) <= 1 - confidence)
    if not len(allowed):
        needed = math.ceil(math.log(1 - confidence) / math.log(target) - 1e-9)
        raise KDError(
            f"expected at least {needed} calibration rows for a target of {target:g} with a confidence of "
            f"{confidence:g}, found {rows}; give more texts with --on FILE, or lower one of the two"
        )
    chosen = NOBODY
    for threshold in thresholds(outcomes.classes):
        if outcomes.differing(threshold) > allowed[-1]:
            break
        chosen = float(threshold)
    return chosen if (outcomes.confidences >= chosen).any() else NOBODY


def lower_bound(differing: int, rows: int, confidence: float) -> float:
    """Return the exact one-sided lower bound of an agreement (Clopper and Pearson).

    >>> round(lower_bound(0, 149, 0.95), 4)
    0.9801
    """
    return float(binomtest(rows - differing, rows, alternative="greater").proportion_ci(confidence).low)
