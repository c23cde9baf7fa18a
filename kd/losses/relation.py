"""Transfer terms that compare how the texts of a batch relate to each other, whatever the widths of the models.

Notation: ``h_s`` and ``h_t`` are the sentence vectors of one matched pair of layers, ``[B, d_s]`` and ``[B, d_t]``. A
larger batch shows more relations; gradient accumulation does not, because each batch is compared by itself.

Texts that coincide are allowed: nothing is divided by a length of zero, in value or in gradient.
"""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Literal, final

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn.functional import huber_loss

from kd.contract import Layers
from kd.losses.hint import PairLoss, comparable, unit
from kd.options.declared import NotNegative

SHORTEST_PRODUCT = 1e-12
"""Up to this length, a vector of products of two lengths, such as a row of a Gram matrix, counts as zero."""


def similarity(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """Return the squared distance of the matrices of similarities between texts.

    ``(1/B^2) ||G_s - G_t||_F^2``, where G is ``h h^T`` with every row divided by its length.

    Returns:
        Scalar in [0, 4 / B], no unit; 0 for states equal up to rotation and scale.

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
    """Return the Huber distance of the distances between two texts, plus that of the angles between three.

    ``distance_weight (1/B^2) sum_ij huber(d_s - d_t) + angle_weight (1/R^3) sum_ijk huber(a_s - a_t)``, where
    ``d_ij = ||h_i - h_j||`` over its mean for i != j, ``a_ijk = cos`` of the angle at j between i and k, and
    ``huber(x)`` is ``x^2 / 2`` up to ``|x| = 1`` and ``|x| - 1/2`` beyond. The angles are those of the
    first ``R = min(B, angle_rows)`` rows of the batch, because they take memory R^3 + R^2 d.

    Returns:
        Scalar >= 0, no unit; 0 for states equal up to rotation, shift and scale, and for a single row.

    Source: Park et al. 2019, https://arxiv.org/abs/1904.05068
    """
    student, teacher = comparable(student_states, teacher_states, same_width=False)
    distance = huber_loss(_relative_distances(student), _relative_distances(teacher))
    angle = huber_loss(_angles(student[:angle_rows]), _angles(teacher[:angle_rows]))
    return distance_weight * distance + angle_weight * angle


def cka(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """Return one minus the centred kernel alignment of both, linear and without the bias of a small batch.

    ``1 - HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L))``, ``K = h_s h_s^T``, ``L = h_t h_t^T``,
    ``HSIC_1(K, L) = [tr(K' L') + 1^T K' 1 1^T L' 1 / ((B - 1) (B - 2)) - 2 / (B - 2) 1^T K' L' 1] / (B (B - 3))``,
    K' and L' being K and L with a diagonal of 0. The alignment of the biased form tends to 1 for any two models where
    B < d.

    It is computed as the cosine between the U-centred K and L, which is the same number, stays in [-1, 1] and
    divides no difference of large sums by another. Each batch gives a ratio of its own.

    Returns:
        Scalar in [0, 2], no unit: 0 for states equal up to rotation, shift and scale, 1 on average for
        unrelated ones, and 1, without gradient, where one side has one vector for all texts; 0 for B < 4.

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
        level: the only level, one vector a text.
    """

    def __init__(self, level: Literal["sentence"] = "sentence", layers: Layers = None, weight: NotNegative = 1.0):
        super().__init__(level, layers, weight)


@final
class SimilarityPreserving(RelationLoss):
    """The loss of `similarity`."""

    compare = staticmethod(similarity)


@final
class RKD(RelationLoss):
    """The loss of `rkd`.

    Args:
        distance_weight: factor of the distances between two texts.
        angle_weight: factor of the angles between three texts.
        angle_rows: largest number of rows for the angles, the first ones of the batch.
    """

    def __init__(
        self,
        level: Literal["sentence"] = "sentence",
        layers: Layers = None,
        distance_weight: NotNegative = 25.0,
        angle_weight: NotNegative = 50.0,
        angle_rows: Annotated[int, Ge(3), Le(2**16)] = 32,
        weight: NotNegative = 1.0,
    ):
        super().__init__(level, layers, weight)
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.angle_rows = angle_rows

    def compare(self, student_states: Tensor, teacher_states: Tensor) -> Tensor:
        return rkd(student_states, teacher_states, self.distance_weight, self.angle_weight, self.angle_rows)


@final
class CKA(RelationLoss):
    """The loss of `cka`."""

    compare = staticmethod(cka)


def _relative_distances(states: Tensor) -> Tensor:
    """Return the distances between rows, ``[B, B]``, over their mean for i != j; 0 where all rows coincide."""
    # computed as |a|^2 + |b|^2 - 2ab, equal rows would have a distance by rounding, with a huge gradient
    distances = torch.cdist(states, states, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / max(len(states) * (len(states) - 1), 1)
    return distances / mean.masked_fill(mean <= 1e-6, torch.inf)


def _angles(states: Tensor) -> Tensor:
    """Return the cosines of the angles at j between i and k, ``[R, R, R]`` as j, i, k; 0 where two rows coincide."""
    directions = unit(states - states[:, None])
    return directions @ directions.mT


def _u_centred(states: Tensor) -> Tensor:
    """Return the U-centred Gram matrix of ``[B, d]``, flattened and scaled to length 1: ``[B^2]``; B >= 4.

    Off the diagonal ``K_ij - r_i / (B - 2) - r_j / (B - 2) + r / ((B - 1) (B - 2))`` with the sums of rows r_i
    and of all entries r of K', on it 0.
    """
    rows = len(states)
    # neither scale nor shift changes the result; without this step float32 would lose small differences
    states = unit(states.flatten()).view_as(states)
    states = states - states.mean(0)
    others = 1 - torch.eye(rows, dtype=states.dtype, device=states.device)
    gram = (states @ states.T) * others
    sums = gram.sum(1)
    centred = gram - (sums + sums[:, None]) / (rows - 2) + sums.sum() / ((rows - 1) * (rows - 2))
    return unit((centred * others).flatten(), SHORTEST_PRODUCT)
