"""Weigh the rows of a batch by the confidence in the teacher's output."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from kd.contract import IGNORED_LABEL, precise
from kd.options.declared import Checked


class Confidence(Checked, ABC):
    """The weights of the rows in the transfer terms."""

    @abstractmethod
    def weights(self, teacher_logits: Tensor, labels: Tensor) -> Tensor | None:
        """Return weights ``[B]`` of mean 1, without a graph, or None for equal weights.

        The weights are all 0 where the teacher's output is of no use in any row.

        Args:
            teacher_logits: ``[B, C]``, without a temperature.
            labels: ``[B]``, class numbers, -100 where there is none.
        """


@final
class EveryRow(Confidence):
    """Equal weights."""

    def weights(self, teacher_logits: Tensor, labels: Tensor) -> None:
        return None


@final
class GoldProbability(Confidence):
    """The teacher's probability of the gold label: ``p_t(y) / mean_b p_t(y)``, ``p_t = softmax(logits)``.

    The mean is over the rows with a label; the other rows weigh 1.

    Source: Furlanello et al. 2018 (equation 9), https://arxiv.org/abs/1805.04770
    """

    @torch.no_grad()
    def weights(self, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        labelled = labels != IGNORED_LABEL
        gold = precise(teacher_logits).softmax(-1).gather(-1, labels.clamp(min=0)[:, None])[:, 0]
        return torch.where(labelled, gold / _positive((gold * labelled).sum() / labelled.sum()), 1.0)


@final
class Certainty(Confidence):
    """The teacher's certainty, right or wrong: ``1 - H(p_t) / log C``, divided by its mean. No label is read.

    Source: Furlanello et al. 2018 (CWTM), with the entropy in place of the largest probability,
    https://arxiv.org/abs/1805.04770
    """

    @torch.no_grad()
    def weights(self, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        log_probabilities = precise(teacher_logits).log_softmax(-1)
        entropy = torch.special.entr(log_probabilities.exp()).sum(-1)
        rows = (1 - entropy / math.log(max(teacher_logits.shape[-1], 2))).clamp(min=0)
        return rows / _positive(rows.mean())


@final
class OnlyCorrect(Confidence):
    """Only rows where the teacher is right: ``1[argmax p_t = y]``, divided by its mean.

    A row without a label counts as right.

    Source: Meng et al. 2019, https://arxiv.org/abs/1904.12399
    """

    @torch.no_grad()
    def weights(self, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        right = (teacher_logits.argmax(-1) == labels) | (labels == IGNORED_LABEL)
        rows = right.to(precise(teacher_logits).dtype)
        return rows / _positive(rows.mean())


def effective_rows(weights: Tensor) -> Tensor:
    """Return the effective share of the rows with weights w ``[B]`` >= 0, a scalar in [0, 1].

    ``(sum w)^2 / (B sum w^2)``; 1 where all weigh the same, 0 where all weights are 0.

    Source: Kish 1965, Survey Sampling, section 11.7

    >>> effective_rows(torch.tensor([2.0, 2.0, 0.0, 0.0])).item()
    0.5
    """
    return weights.sum().square() / _positive(len(weights) * weights.square().sum())


def _positive(mean: Tensor) -> Tensor:
    """Return a divisor above 0, so that 0 / 0 is 0."""
    return mean.clamp(min=torch.finfo(mean.dtype).tiny)
