"""Logit terms that ask for correlation with the teacher's probabilities in place of equality.

The notation is that of `kd.losses.logits`.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from kd.contract import Answer, Batch
from kd.losses.logits import TemperedLoss, log_probabilities
from kd.options.declared import NotNegative, Temperature

LEAST_SQUARED_NORM = 1e-8
"""A spread of probabilities below 1e-4 counts as none: what correlates there is rounding."""


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
) -> Tensor:
    """Return one minus the correlation of the classes in a row, plus that of the rows in a class.

    ``temperature^2 [inter_weight (1 - mean_b r(p_s[b, :], p_t[b, :])) + intra_weight (1 - mean_c r(p_s[:, c],
    p_t[:, c]))]``, r Pearson's correlation, 0 where one side is constant. The second part is 0 for a single row, and
    needs about 32 rows to be meaningful.

    Returns:
        Scalar in ``[0, 2 temperature^2 (inter_weight + intra_weight)]``, no unit otherwise; 0 at equality.

    Source: Huang et al. 2022, https://arxiv.org/abs/2205.10536
    """
    student, teacher = (side.exp() for side in log_probabilities(student_logits, teacher_logits, temperature))
    term = inter_weight * (1 - _correlation(student, teacher, 1).mean())
    if len(student) > 1:
        term = term + intra_weight * (1 - _correlation(student, teacher, 0).mean())
    return temperature**2 * term


@final
class DIST(TemperedLoss):
    """The loss of `dist`.

    Args:
        temperature: divides the logits of student and teacher; 1 to 4 in the source.
        inter_weight: weight of the correlation over the classes of a row; beta in the source.
        intra_weight: weight of the correlation over the rows of a batch; gamma in the source.
    """

    weighs_rows = False

    def __init__(
        self,
        temperature: Temperature = 1.0,
        inter_weight: NotNegative = 1.0,
        intra_weight: NotNegative = 1.0,
        weight: NotNegative = 1.0,
    ):
        super().__init__(temperature, weight)
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight
        self.is_mean_over_rows = not intra_weight

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        return dist(student.logits, teacher.logits, self.temperature, self.inter_weight, self.intra_weight)

    def degenerate(self, num_labels: int) -> str | None:
        if num_labels != 2:
            return super().degenerate(num_labels)
        return (
            "two probabilities correlate with 1 or -1, and the part of DIST over the classes has no gradient; "
            f"left is the part over the batch, times intra_weight={self.intra_weight}"
        )


def _correlation(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Return Pearson's correlation along dim; 0, with a finite gradient, where one side is constant."""
    first, second = (side - side.mean(dim, keepdim=True) for side in (first, second))
    squared_norms = [side.square().sum(dim) + LEAST_SQUARED_NORM for side in (first, second)]
    return (first * second).sum(dim) / (squared_norms[0] * squared_norms[1]).sqrt()
