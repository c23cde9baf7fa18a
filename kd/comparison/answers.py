"""How much a teacher's answers say beyond its labels, and where two models answer differently.

N rows, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import entr, rel_entr, softmax

TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0)


class Softness(NamedTuple):
    """Answers at a temperature.

    Args:
        entropy: mean entropy of an answer, in nats.
        information: `information` in the answers, in nats.
    """

    temperature: float
    entropy: float
    information: float


def softness(logits: np.ndarray, temperature: float) -> Softness:
    """Return what the answers with these logits ``[N, C]`` say at a temperature."""
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    return Softness(temperature, float(entr(probabilities).sum(axis=1).mean()), information(probabilities))


def information(probabilities: np.ndarray) -> float:
    """Return what answers ``[N, C]`` say about their texts beyond the label, in nats.

    It is the conditional mutual information of the text and the answer, given the label: the mean KL divergence of an
    answer from the mean answer with the same most probable label. It is 0 where all answers with a label are equal,
    as those of a teacher that is always sure and those at a very high temperature are.

    Source: Ye et al. 2024, https://arxiv.org/abs/2401.08732, who condition on the gold label
    """
    labels = probabilities.argmax(axis=1)
    total = 0.0
    for label in np.unique(labels):
        own = probabilities[labels == label]
        total += float(rel_entr(own, own.mean(axis=0)).sum())
    return max(0.0, total / len(labels))


def divergences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence ``[N]`` of two models' answers ``[N, C]``, in nats, in [0, log 2]."""
    middle = (first + second) / 2
    return (rel_entr(first, middle) + rel_entr(second, middle)).sum(axis=1) / 2
