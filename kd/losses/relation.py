"""Transfer terms that compare how the texts of a batch lie to each other, whatever the widths of the models.

Throughout, ``h_s`` and ``h_t`` are the sentence vectors of one matched pair of layers, ``[B, d_s]`` and
``[B, d_t]``, in any floating type; all is computed in float32 (float64 stays float64), and several pairs count by
their mean. A `Loss` detaches the teacher; the functions leave that to their caller. Texts that coincide are as
good as any others: nothing is divided by a length of zero, in value or in gradient. What a batch shows of such
relations grows with its size, and with gradient accumulation it stays the small one.
"""

from __future__ import annotations

from abc import ABC
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from kd.contract import number
from kd.losses.hint import PairLoss, comparable, unit

SHORTEST_PRODUCT = 1e-12
"""Length up to which a vector of products of two lengths, such as a row of a Gram matrix, counts as zero."""


def similarity(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """Squared distance of the matrices of similarities between texts.

    ``(1/B^2) ||G_s - G_t||_F^2``, where G is ``h h^T`` with every row divided by its length.

    Args:
        student_states: ``[B, d_s]``.
        teacher_states: ``[B, d_t]``; a constant, unless the caller left it its graph.

    Returns:
        Scalar in [0, 4 / B], no unit; 0 for states equal up to rotation and scale.

    Raises:
        KDError: two numbers of rows.

    Source: Tung and Mori 2019 (similarity-preserving), https://arxiv.org/abs/1907.09682
    """
    student, teacher = (
        unit(states @ states.T, SHORTEST_PRODUCT)
        for states in comparable(student_states, teacher_states, same_width=False)
    )
    return (student - teacher).square().mean()


def rkd(
    student_states: Tensor,
    teacher_states: Tensor,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    angle_rows: int = 32,
) -> Tensor:
    """Huber distance of the distances between two texts and of the angles between three.

    ``distance_weight (1/B^2) sum_ij huber(d_s - d_t) + angle_weight (1/R^3) sum_ijk huber(a_s - a_t)``, where
    ``d_ij = ||h_i - h_j||`` over its mean for i != j, ``a_ijk = cos`` of the angle at j between i and k, and
    ``huber(x)`` is ``x^2 / 2`` up to ``|x| = 1`` and ``|x| - 1/2`` beyond. The angles take memory R^3 + R^2 d: they see
    the first ``R = min(B, angle_rows)`` rows of the batch only.

    Args:
        student_states: ``[B, d_s]``.
        teacher_states: ``[B, d_t]``; a constant, unless the caller left it its graph.
        distance_weight: factor of the distances, >= 0.
        angle_weight: factor of the angles, >= 0.
        angle_rows: how many rows enter the angles at most, >= 3.

    Returns:
        Scalar >= 0, no unit; 0 for states equal up to rotation, shift and scale, and for a single row.

    Raises:
        KDError: two numbers of rows.

    Source: Park et al. 2019, https://arxiv.org/abs/1904.05068
    """
    states = comparable(student_states, teacher_states, same_width=False)
    distance = huber_loss(*(_relative_distances(side) for side in states))
    angle = huber_loss(*(_angles(side[:angle_rows]) for side in states))
    return distance_weight * distance + angle_weight * angle


def cka(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """One minus the centred kernel alignment of the two, linear and without the bias of a small batch.

    ``1 - HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L))``, ``K = h_s h_s^T``, ``L = h_t h_t^T``,
    ``HSIC_1(K, L) = [tr(K' L') + 1^T K' 1 1^T L' 1 / ((B - 1) (B - 2)) - 2 / (B - 2) 1^T K' L' 1] / (B (B - 3))``,
    K' and L' being K and L with a diagonal of 0. The biased form tends to 1 for any two models where B < d.

    Computed as the cosine between the U-centred K and L, which is the same number: so it cannot leave [-1, 1],
    and no difference of large sums is divided by another. Each batch gives a ratio of its own.

    Args:
        student_states: ``[B, d_s]``.
        teacher_states: ``[B, d_t]``; a constant, unless the caller left it its graph.

    Returns:
        Scalar in [0, 2], no unit: 0 for states equal up to rotation, shift and scale, 1 on average for
        unrelated ones, and 1, without gradient, where one side says the same of every text; 0 for B < 4.

    Raises:
        KDError: two numbers of rows.

    Source: Kornblith et al. 2019, https://arxiv.org/abs/1905.00414; unbiased: Song et al. 2012,
    https://jmlr.org/papers/v13/song12a.html; on minibatches: Nguyen, Raghu and Kornblith 2021,
    https://arxiv.org/abs/2010.15327; U-centring: Székely and Rizzo 2014, https://arxiv.org/abs/1310.2926
    """
    student, teacher = comparable(student_states, teacher_states, same_width=False)
    if len(student) < 4:
        return 0 * student.sum()
    return 1 - (_u_centred(student) * _u_centred(teacher)).sum()


class RelationLoss(PairLoss, ABC):
    """A term on the relations between the texts of a batch.

    Args:
        level: "sentence".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        weight: factor of this term within the transfer part of the objective, >= 0.

    Raises:
        KDError: an option is outside its range.
    """

    levels = ("sentence",)

    @property
    def is_mean_over_rows(self) -> bool:
        return False


@final
class SimilarityPreserving(RelationLoss):
    """`similarity`: squared distance of the row-normalised Gram matrices, mean over their B^2 entries.

    Args:
        level: "sentence".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        weight: factor within the transfer part, >= 0.
    """

    def compare(self, student_states: Tensor, teacher_states: Tensor) -> Tensor:
        return similarity(student_states, teacher_states)


@final
class RKD(RelationLoss):
    """`rkd`: distances between pairs and angles between triples of texts.

    Args:
        level: "sentence".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        distance_weight: factor of the distances, >= 0.
        angle_weight: factor of the angles, >= 0.
        angle_rows: how many rows of the batch, its first ones, enter the angles at most, >= 3.
        weight: factor within the transfer part, >= 0.
    """

    def __init__(
        self,
        level: str = "sentence",
        layers: str | list | None = None,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        angle_rows: int = 32,
        weight: float = 1.0,
    ):
        super().__init__(level, layers, weight)
        self.distance_weight = number("distance_weight", distance_weight, "a number >= 0", lambda value: value >= 0)
        self.angle_weight = number("angle_weight", angle_weight, "a number >= 0", lambda value: value >= 0)
        self.angle_rows = number(
            "angle_rows", angle_rows, "a whole number >= 3", lambda value: isinstance(value, int) and value >= 3
        )

    def compare(self, student_states: Tensor, teacher_states: Tensor) -> Tensor:
        return rkd(student_states, teacher_states, self.distance_weight, self.angle_weight, self.angle_rows)


@final
class CKA(RelationLoss):
    """`cka`: one minus the unbiased linear centred kernel alignment of a batch.

    Args:
        level: "sentence".
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        weight: factor within the transfer part, >= 0.
    """

    def compare(self, student_states: Tensor, teacher_states: Tensor) -> Tensor:
        return cka(student_states, teacher_states)


def _relative_distances(states: Tensor) -> Tensor:
    """Distances between rows, ``[B, B]``, over their mean for i != j; 0 where all rows coincide."""
    # through |a|^2 + |b|^2 - 2ab, rows that coincide would lie apart by rounding, with a huge gradient
    distances = torch.cdist(states, states, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / max(len(states) * (len(states) - 1), 1)
    return distances / mean.masked_fill(mean <= 1e-6, torch.inf)


def _angles(states: Tensor) -> Tensor:
    """Cosines of the angles at j between i and k, ``[R, R, R]`` in the order j, i, k; 0 where two rows coincide."""
    directions = unit(states - states[:, None])
    return directions @ directions.mT


def _u_centred(states: Tensor) -> Tensor:
    """The U-centred Gram matrix of ``[B, d]``, flattened, of length 1: ``[B^2]``; B >= 4.

    Off the diagonal ``K_ij - r_i / (B - 2) - r_j / (B - 2) + r / ((B - 1) (B - 2))`` with the sums of rows r_i
    and of all entries r of K', on it 0.
    """
    rows = len(states)
    # neither shift nor scale changes the result; without them float32 would not see small differences
    states = unit(states.flatten()).view_as(states)
    states = states - states.mean(0)
    others = 1 - torch.eye(rows, dtype=states.dtype, device=states.device)
    gram = (states @ states.T) * others
    sums = gram.sum(1)
    centred = gram - (sums + sums[:, None]) / (rows - 2) + sums.sum() / ((rows - 1) * (rows - 2))
    return unit((centred * others).flatten(), SHORTEST_PRODUCT)
