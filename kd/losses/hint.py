"""Transfer terms that compare hidden states row by row: a row of the student with the same row of the teacher.

Notation: ``h_s`` and ``h_t`` are the states of one matched pair of layers, ``[N, d]`` of d features. The N rows are
the texts at level "sentence", and the real tokens of the batch at level "token": padding never counts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, final

import torch
from torch import Tensor

from kd.contract import Answer, Batch, FeatureLoss, Layers, Level, precise
from kd.errors import KDError
from kd.options.declared import NotNegative

REDUCTIONS = {"sum": torch.sum, "mean": torch.mean}


def hint(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """Return the squared distance of the states.

    ``(1/N) sum_n (1/d) sum_k (h_s - h_t)^2``, without the factor 1/2 of the paper.

    Returns:
        Scalar >= 0, in squared units of the states; 0 at equality.

    Source: Romero et al. 2015 (FitNets), https://arxiv.org/abs/1412.6550

    >>> hint(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])).item()
    2.0
    """
    student, teacher = comparable(student_states, teacher_states)
    return mean_over_rows((student - teacher).square().mean(-1))


def pkd(student_states: Tensor, teacher_states: Tensor, reduction_over_width: Literal["sum", "mean"] = "sum") -> Tensor:
    """Return the squared distance of the states scaled to length 1: only directions count.

    ``(1/N) sum_n (1/D) sum_k (h_s / ||h_s|| - h_t / ||h_t||)^2``, where D is 1 for ``reduction_over_width="sum"``,
    which makes a row ``2 (1 - cos)``, and d for ``"mean"``.

    Returns:
        Scalar in [0, 4 / D], no unit; 0 for equal directions. A row of zeros stays zero and has no gradient.

    Source: Sun et al. 2019 (Patient KD), https://arxiv.org/abs/1908.09355; the sum as in TextBrewer, Yang et al.
    2020, https://arxiv.org/abs/2002.12620; the mean as in the code of MetaDistil, Zhou, Xu and McAuley 2022,
    https://arxiv.org/abs/2106.04570
    """
    student, teacher = comparable(student_states, teacher_states)
    return mean_over_rows(REDUCTIONS[reduction_over_width]((unit(student) - unit(teacher)).square(), -1))


def cosine(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """Return one minus the cosine of the angle between the states.

    ``(1/N) sum_n (1 - <h_s, h_t> / (||h_s|| ||h_t||))``

    Returns:
        Scalar in [0, 2], no unit; 0 for equal directions. A row of zeros counts 1 and has no gradient.

    Source: Sanh et al. 2019 (DistilBERT), https://arxiv.org/abs/1910.01108
    """
    student, teacher = comparable(student_states, teacher_states)
    return mean_over_rows(1 - (unit(student) * unit(teacher)).sum(-1))


def vid(student_states: Tensor, teacher_states: Tensor, variances: Tensor) -> Tensor:
    """Return the negative log-likelihood of the teacher's states, normally distributed about the student's states.

    ``(1/N) sum_n (1/d) sum_k [log(sigma_k^2) / 2 + (h_t - h_s)^2 / (2 sigma_k^2)]``: up to sign and constants, a lower
    bound on the mutual information of the two.

    Args:
        variances: sigma^2 of each feature, ``[d]``, > 0, in squared units of the states; learned.

    Returns:
        Scalar, in nats a feature; at equality the mean of log(sigma), which may be negative.

    Source: Ahn et al. 2019, https://arxiv.org/abs/1904.05835
    """
    student, teacher = comparable(student_states, teacher_states)
    if variances.shape != student.shape[1:]:
        raise KDError(
            f"expected one variance a feature, [{student.shape[1]}], found {list(variances.shape)}; "
            "give the mapper the teacher's width"
        )
    variances = precise(variances)
    return mean_over_rows((variances.log() + (teacher - student).square() / variances).mean(-1) / 2)


class PairLoss(FeatureLoss, ABC):
    """A term that compares one matched pair of layers at a time; the mean over the pairs counts."""

    @abstractmethod
    def compare(self, student_states: Tensor, teacher_states: Tensor) -> Tensor:
        """Return the term of one pair, a scalar, from states ``[N, d]``."""

    @final
    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        return mean_over_pairs(self.compare(*pair) for pair in matched_rows(student, teacher, batch, self.level))


class RowByRow(FeatureLoss, ABC):
    """What the terms of this file have in common: both sides have one width, and no row is compared with another."""

    same_width = True

    def __init__(self, level: Level = "sentence", layers: Layers = None, weight: NotNegative = 1.0):
        super().__init__(level, layers, weight)
        # at level "token" it is a mean over tokens, of which a row may have many
        self.is_mean_over_rows = level == "sentence"


@final
class Hint(RowByRow, PairLoss):
    """The loss of `hint`; at level "token" it is TinyBERT's term on hidden states."""

    compare = staticmethod(hint)


@final
class PKD(RowByRow, PairLoss):
    """The loss of `pkd`.

    Args:
        reduction_over_width: sum or mean over the features.
    """

    def __init__(
        self,
        level: Level = "sentence",
        layers: Layers = None,
        reduction_over_width: Literal["sum", "mean"] = "sum",
        weight: NotNegative = 1.0,
    ):
        super().__init__(level, layers, weight)
        self.reduction_over_width = reduction_over_width

    def compare(self, student_states: Tensor, teacher_states: Tensor) -> Tensor:
        return pkd(student_states, teacher_states, self.reduction_over_width)


@final
class Cosine(RowByRow, PairLoss):
    """The loss of `cosine`."""

    compare = staticmethod(cosine)


@final
class VID(RowByRow):
    """The loss of `vid`; the method learns the variances."""

    needs_variances = True

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        pairs = matched_rows(student, teacher, batch, self.level)
        return mean_over_pairs(vid(*pair, variances) for pair, variances in zip(pairs, student.variances, strict=True))


def matched_rows(student: Answer, teacher: Answer, batch: Batch, level: str) -> list[tuple[Tensor, Tensor]]:
    """Return the states of student and teacher for each matched pair, as rows ``[N, d]``: texts, or real tokens."""
    pairs = list(zip(student.hidden_states, teacher.hidden_states, strict=True))
    if level == "sentence":
        return pairs
    mask = batch["attention_mask"]
    real = mask.flatten().nonzero().squeeze(1)
    for pair in pairs:
        if any(states.dim() != 3 or states.shape[:2] != mask.shape for states in pair):
            found = " and teacher ".join(str(list(states.shape)) for states in pair)
            raise KDError(
                f"states at level 'token' must come as [rows, length, width] with rows and length {list(mask.shape)}, "
                f"found student {found}; use level 'sentence' where the tokenizers differ"
            )
    return [(own.flatten(0, 1)[real], other.flatten(0, 1)[real]) for own, other in pairs]


def comparable(student_states: Tensor, teacher_states: Tensor, same_width: bool = True) -> tuple[Tensor, Tensor]:
    """Return both in one precision, float32 at least.

    Raises:
        KDError: states that are not ``[N, d]``, two numbers of rows or, with `same_width`, two widths.
    """
    if (
        not student_states.dim() == teacher_states.dim() == 2
        or len(student_states) != len(teacher_states)
        or (same_width and student_states.shape != teacher_states.shape)
    ):
        expected = "equal rows and widths" if same_width else "equal rows"
        raise KDError(
            f"states must come as [rows, width] with {expected}, found student {list(student_states.shape)} and "
            f"teacher {list(teacher_states.shape)}; check the level and the mapper of this pair of layers"
        )
    precision = torch.promote_types(precise(student_states).dtype, teacher_states.dtype)
    return student_states.to(precision), teacher_states.to(precision)


def unit(vectors: Tensor, shortest: float = 1e-6) -> Tensor:
    """Return ``v / ||v||`` along the last dimension; 0, with gradient 0, where ``||v|| <= shortest``."""
    # division by max(||v||, shortest) would give a row of zeros a gradient of 1 / shortest
    squares = vectors.square().sum(-1, keepdim=True)
    return vectors * squares.masked_fill(squares <= shortest**2, math.inf).rsqrt()


def mean_over_rows(rows: Tensor) -> Tensor:
    """Return ``(1/N) sum_n row_n`` from ``[N]``; 0 where a batch has no real token."""
    return rows.sum() / max(len(rows), 1)


def mean_over_pairs(terms: Iterable[Tensor]) -> Tensor:
    """Return the mean of scalars, one for each matched pair of layers."""
    return torch.stack(list(terms)).mean()
