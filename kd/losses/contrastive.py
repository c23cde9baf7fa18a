"""Transfer terms by contrast: the student's vector of a text must point to the teacher's of that text, not of another.

The negatives are the other texts of the batch, so a large batch teaches more, and gradient accumulation adds none.
States come in any floating type; all is computed in float32 (float64 stays float64). A `Loss` detaches the
teacher; the functions leave that to their caller.
"""

from __future__ import annotations

import math
from abc import ABC
from typing import final

import torch
from torch import Tensor

from kd.contract import IGNORED_LABEL, Answer, Batch, FeatureLoss, number, option
from kd.losses.hint import comparable, matched_rows, mean_over_pairs, unit

SAME_TEXT = 1e-3
"""Distance of two teacher directions up to which they are one text; copies rounded to half precision lie closer."""


def info_nce(
    student_states: Tensor, teacher_states: Tensor, contrast_temperature: float = 0.07, labels: Tensor | None = None
) -> Tensor:
    """Cross-entropy of finding, for each text, the teacher's vector among those of the batch.

    ``-(1/B) sum_b log [exp(cos_bb / tau) / sum_(c in N_b) exp(cos_bc / tau)]``, ``cos_bc`` between the student's
    row b and the teacher's row c, tau the `contrast_temperature`. N_b holds b and all other rows but those where
    the teacher's vector is the one of b (the same text) and, if labels are given, those of b's class.

    Args:
        student_states: ``[B, d]``; a row of zeros has no gradient.
        teacher_states: ``[B, d]``; a constant, unless the caller left it its graph.
        contrast_temperature: divides the cosines, > 0, no unit; not the temperature of soft targets.
        labels: ``[B]``, -100 where there is none, which is no class: rows of the same class are no negatives.

    Returns:
        Scalar >= 0, in nats; log(B) where all cosines are equal, 0 where no negative is left.

    Raises:
        KDError: states of two shapes.

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
    """A term on the texts of a batch that `info_nce` tells apart.

    Args:
        level: "sentence".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        contrast_temperature: divides the cosines, > 0.
        exclude_same_class: rows of one gold label are no negatives of each other.
        weight: factor of this term within the transfer part of the objective, >= 0.

    Raises:
        KDError: an option is outside its range.
    """

    levels = ("sentence",)
    same_width = True

    @property
    def is_mean_over_rows(self) -> bool:
        return False

    def __init__(
        self,
        level: str = "sentence",
        layers: str | list | None = None,
        contrast_temperature: float = 0.07,
        exclude_same_class: bool = False,
        weight: float = 1.0,
    ):
        super().__init__(level, layers, weight)
        self.contrast_temperature = number(
            "contrast_temperature", contrast_temperature, "a number > 0", lambda value: value > 0
        )
        self.exclude_same_class = option("exclude_same_class", exclude_same_class, (True, False))

    def contrast(self, student_states: Tensor, teacher_states: Tensor, batch: Batch) -> Tensor:
        """`info_nce` with the options of the term."""
        labels = batch["labels"] if self.exclude_same_class else None
        return info_nce(student_states, teacher_states, self.contrast_temperature, labels)


@final
class CRD(ContrastiveLoss):
    """`info_nce` of each pair of layers, mean over the pairs.

    Source: Tian, Krishnan and Isola 2020, https://arxiv.org/abs/1910.10699

    Args:
        level: "sentence".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        contrast_temperature: divides the cosines, > 0.
        exclude_same_class: rows of one gold label are no negatives of each other.
        weight: factor within the transfer part, >= 0.
    """

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        pairs = matched_rows(student, teacher, batch, self.level)
        return mean_over_pairs(self.contrast(*pair, batch) for pair in pairs)


@final
class CoDIR(ContrastiveLoss):
    """`info_nce` of the vectors of all pairs of layers put side by side, ``[B, d_1 + d_2 + ...]``.

    Source: Sun et al. 2020 (there with a memory bank), https://arxiv.org/abs/2009.14167

    Args:
        level: "sentence".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        contrast_temperature: divides the cosines, > 0.
        exclude_same_class: rows of one gold label are no negatives of each other.
        weight: factor within the transfer part, >= 0.
    """

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        pairs = (comparable(*pair) for pair in matched_rows(student, teacher, batch, self.level))
        return self.contrast(*(torch.cat(side, dim=1) for side in zip(*pairs, strict=True)), batch)
