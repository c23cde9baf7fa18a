"""Contrastive terms: the student's vector of a text must point to the teacher's vector of that text, not of another.

The negatives are the other texts of the batch, so a larger batch teaches more, and gradient accumulation adds none.
"""

from __future__ import annotations

import math
from abc import ABC
from typing import Literal, final

import torch
from torch import Tensor

from kd.contract import IGNORED_LABEL, Answer, Batch, FeatureLoss, Layers
from kd.losses.hint import comparable, matched_rows, mean_over_pairs, unit
from kd.options.declared import NotNegative, Temperature

SAME_TEXT = 1e-3
"""Largest distance of two teacher directions that belong to one text; copies rounded to half precision lie closer."""


def info_nce(
    student_states: Tensor, teacher_states: Tensor, contrast_temperature: float = 0.07, labels: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy of finding, for each text, the teacher's vector among those of the batch.

    ``-(1/B) sum_b log [exp(cos_bb / tau) / sum_(c in N_b) exp(cos_bc / tau)]``, ``cos_bc`` between the student's
    row b and the teacher's row c, tau the `contrast_temperature`. N_b holds b and the other rows, except those where
    the teacher's vector is the one of b (the same text) and, if labels are given, those of b's class.

    Args:
        student_states, teacher_states: ``[B, d]``; a student's row of zeros has no gradient.
        labels: ``[B]``; rows of one class are no negatives of each other. -100, no label, is not a class.

    Returns:
        Scalar >= 0, in nats; log(B) where all cosines are equal, 0 where no negative is left.

    Source: van den Oord, Li and Vinyals 2018, https://arxiv.org/abs/1807.03748; between student and teacher:
    Tian, Krishnan and Isola 2020 (CRD; there with a memory bank), https://arxiv.org/abs/1910.10699
    """
    student, teacher = (unit(states) for states in comparable(student_states, teacher_states))
    constant = teacher.detach()
    excluded = torch.cdist(constant, constant, compute_mode="donot_use_mm_for_euclid_dist") <= SAME_TEXT
    if labels is not None:
        excluded |= (labels == labels[:, None]) & (labels != IGNORED_LABEL)
    excluded.fill_diagonal_(False)
    cosines = (student @ teacher.T / contrast_temperature).masked_fill(excluded, -math.inf)
    return (cosines.logsumexp(1) - cosines.diagonal()).mean()


class ContrastiveLoss(FeatureLoss, ABC):
    """A term that applies `info_nce` to the texts of a batch.

    Args:
        level: the only level, one vector a text.
        contrast_temperature: divides the cosines; not the temperature of soft targets.
        exclude_same_class: leave out negatives with the gold label of the text.
    """

    same_width = True

    def __init__(
        self,
        level: Literal["sentence"] = "sentence",
        layers: Layers = None,
        contrast_temperature: Temperature = 0.07,
        exclude_same_class: bool = False,
        weight: NotNegative = 1.0,
    ):
        super().__init__(level, layers, weight)
        self.contrast_temperature = contrast_temperature
        self.exclude_same_class = exclude_same_class

    def contrast(self, student_states: Tensor, teacher_states: Tensor, batch: Batch) -> Tensor:
        """Compute `info_nce` with the options of the term."""
        labels = batch["labels"] if self.exclude_same_class else None
        return info_nce(student_states, teacher_states, self.contrast_temperature, labels)


@final
class CRD(ContrastiveLoss):
    """The loss of `info_nce` for each pair of layers; the mean over the pairs counts.

    Source: Tian, Krishnan and Isola 2020, https://arxiv.org/abs/1910.10699
    """

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        pairs = matched_rows(student, teacher, batch, self.level)
        return mean_over_pairs(self.contrast(*pair, batch) for pair in pairs)


@final
class CoDIR(ContrastiveLoss):
    """The loss of `info_nce` for the vectors of all pairs of layers side by side, ``[B, d_1 + d_2 + ...]``.

    Source: Sun et al. 2020 (there with a memory bank), https://arxiv.org/abs/2009.14167
    """

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        pairs = (comparable(*pair) for pair in matched_rows(student, teacher, batch, self.level))
        own, other = (torch.cat(side, dim=1) for side in zip(*pairs, strict=True))
        return self.contrast(own, other, batch)
