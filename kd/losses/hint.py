"""Transfer terms that compare hidden states one by one: a row of the student with the same row of the teacher.

Throughout, ``h_s`` and ``h_t`` are the states of one matched pair of layers, ``[N, d]`` of d features, in any
floating type: N texts at level "sentence", the N real tokens of a batch at level "token", so that padding never
counts. All is computed in float32 (float64 stays float64), and several pairs count by their mean. A `Loss`
detaches the teacher; the functions leave that to their caller. Widths that differ raise a `KDError`: what maps
one onto the other lives with the method.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import final

import torch
from torch import Tensor

from kd.contract import Answer, Batch, FeatureLoss, option, precise
from kd.errors import KDError

REDUCTIONS_OVER_WIDTH: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda terms: terms.sum(-1),
    "mean": lambda terms: terms.mean(-1),
}


def hint(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """Squared distance of the states.

    ``(1/N) sum_n (1/d) sum_k (h_s - h_t)^2``, without the factor 1/2 of the paper.

    Args:
        student_states: ``[N, d]``.
        teacher_states: ``[N, d]``; a constant, unless the caller left it its graph.

    Returns:
        Scalar >= 0, in squared units of the states; 0 at equality.

    Raises:
        KDError: states of two shapes.

    Source: Romero et al. 2015 (FitNets), https://arxiv.org/abs/1412.6550

    >>> hint(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])).item()
    2.0
    """
    student, teacher = comparable(student_states, teacher_states)
    return mean_over_rows((student - teacher).square().mean(-1))


def pkd(student_states: Tensor, teacher_states: Tensor, reduction_over_width: str = "sum") -> Tensor:
    """Squared distance of the states brought to length 1: directions count, lengths do not.

    ``(1/N) sum_n (1/D) sum_k (h_s / ||h_s|| - h_t / ||h_t||)^2``, where D is 1 for
    ``reduction_over_width="sum"``, which makes a row ``2 (1 - cos)``, and d for ``"mean"``.

    Args:
        student_states: ``[N, d]``; a row of zeros counts as it is and has no gradient.
        teacher_states: ``[N, d]``; a constant, unless the caller left it its graph.
        reduction_over_width: ``sum`` or ``mean``.

    Returns:
        Scalar in [0, 4 / D], no unit; 0 for equal directions.

    Raises:
        KDError: states of two shapes.

    Source: Sun et al. 2019 (Patient KD), https://arxiv.org/abs/1908.09355; summed as in TextBrewer, Yang et al.
    2020, https://arxiv.org/abs/2002.12620; the mean as in the code of MetaDistil, Zhou, Xu and McAuley 2022,
    https://arxiv.org/abs/2106.04570
    """
    student, teacher = comparable(student_states, teacher_states)
    return mean_over_rows(REDUCTIONS_OVER_WIDTH[reduction_over_width]((unit(student) - unit(teacher)).square()))


def cosine(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """One minus the cosine of the angle between the states.

    ``(1/N) sum_n (1 - <h_s, h_t> / (||h_s|| ||h_t||))``

    Args:
        student_states: ``[N, d]``; a row of zeros counts 1 and has no gradient.
        teacher_states: ``[N, d]``; a constant, unless the caller left it its graph.

    Returns:
        Scalar in [0, 2], no unit; 0 for equal directions.

    Raises:
        KDError: states of two shapes.

    Source: Sanh et al. 2019 (DistilBERT), https://arxiv.org/abs/1910.01108
    """
    student, teacher = comparable(student_states, teacher_states)
    return mean_over_rows(1 - (unit(student) * unit(teacher)).sum(-1))


def vid(student_states: Tensor, teacher_states: Tensor, variances: Tensor) -> Tensor:
    """Negative log-likelihood of the teacher's states, normally distributed about the student's mapped ones.

    ``(1/N) sum_n (1/d) sum_k [log(sigma_k^2) / 2 + (h_t - mu)^2 / (2 sigma_k^2)]``, ``mu = h_s``: a lower bound
    on the mutual information of the two, up to sign and constants.

    Args:
        student_states: ``[N, d]``, already mapped.
        teacher_states: ``[N, d]``; a constant, unless the caller left it its graph.
        variances: sigma^2 of each feature, ``[d]``, > 0, in squared units of the states; learned.

    Returns:
        Scalar, in nats a feature; at equality the mean of log(sigma), which may be negative.

    Raises:
        KDError: states of two shapes, or another number of variances.

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
    """A term that looks at one matched pair of layers at a time, and counts the mean over the pairs.

    Args:
        level: "sentence" or "token", as far as the term knows it.
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        weight: factor of this term within the transfer part of the objective, >= 0.

    Raises:
        KDError: an option is outside its range.
    """

    @abstractmethod
    def compare(self, student_states: Tensor, teacher_states: Tensor) -> Tensor:
        """The term of one pair as a scalar, from states ``[N, d]``."""

    @final
    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        return mean_over_pairs(self.compare(*pair) for pair in matched_rows(student, teacher, batch, self.level))


@final
class Hint(PairLoss):
    """`hint`: (h_s - h_t)^2, mean over rows and width; with level "token" TinyBERT's term on hidden states.

    Args:
        level: "sentence" or "token".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        weight: factor within the transfer part, >= 0.
    """

    same_width = True

    def compare(self, student_states: Tensor, teacher_states: Tensor) -> Tensor:
        return hint(student_states, teacher_states)


@final
class PKD(PairLoss):
    """`pkd`: squared distance of states of length 1, mean over rows.

    Args:
        level: "sentence" or "token".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        reduction_over_width: ``sum`` or ``mean``.
        weight: factor within the transfer part, >= 0.
    """

    same_width = True

    def __init__(
        self,
        level: str = "sentence",
        layers: str | list | None = None,
        reduction_over_width: str = "sum",
        weight: float = 1.0,
    ):
        super().__init__(level, layers, weight)
        self.reduction_over_width = option("reduction_over_width", reduction_over_width, REDUCTIONS_OVER_WIDTH)

    def compare(self, student_states: Tensor, teacher_states: Tensor) -> Tensor:
        return pkd(student_states, teacher_states, self.reduction_over_width)


@final
class Cosine(PairLoss):
    """`cosine`: 1 - cos(h_s, h_t), mean over rows.

    Args:
        level: "sentence" or "token".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        weight: factor within the transfer part, >= 0.
    """

    same_width = True

    def compare(self, student_states: Tensor, teacher_states: Tensor) -> Tensor:
        return cosine(student_states, teacher_states)


@final
class VID(FeatureLoss):
    """`vid`: log(sigma^2) / 2 + (h_t - h_s)^2 / (2 sigma^2), mean over rows and width.

    Args:
        level: "sentence" or "token".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        weight: factor within the transfer part, >= 0.
    """

    same_width = True
    needs_variances = True

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        pairs = matched_rows(student, teacher, batch, self.level)
        return mean_over_pairs(vid(*pair, variances) for pair, variances in zip(pairs, student.variances, strict=True))


def matched_rows(student: Answer, teacher: Answer, batch: Batch, level: str) -> list[tuple[Tensor, Tensor]]:
    """The states of each matched pair, student's and teacher's, as rows ``[N, d]``: texts, or real tokens.

    Raises:
        KDError: states at level "token" that do not fit the attention mask.
    """
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
                f"found student {found}; use level 'sentence' where the two read other tokens"
            )
    return [tuple(states.flatten(0, 1)[real] for states in pair) for pair in pairs]


def comparable(student_states: Tensor, teacher_states: Tensor, same_width: bool = True) -> tuple[Tensor, Tensor]:
    """Both in one precision, float32 at least.

    Raises:
        KDError: not ``[N, d]``, or two numbers of rows, or, where `same_width`, two widths.
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
    """``v / ||v||`` along the last dimension; 0, with gradient 0, where ``||v|| <= shortest``.

    Dividing by a bounded length instead would send a gradient of 1 / shortest through a row of zeros.
    """
    squares = vectors.square().sum(-1, keepdim=True)
    return vectors * squares.masked_fill(squares <= shortest**2, math.inf).rsqrt()


def mean_over_rows(rows: Tensor) -> Tensor:
    """``(1/N) sum_n row_n`` from ``[N]``; 0 where a batch has no real token."""
    return rows.sum() / max(len(rows), 1)


def mean_over_pairs(terms: Iterable[Tensor]) -> Tensor:
    """The mean of scalars, one a matched pair of layers."""
    return torch.stack(list(terms)).mean()
