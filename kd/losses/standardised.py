"""Soft targets of standardised logits; the notation is that of `kd.losses.logits`."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from kd.contract import Answer, Batch
from kd.losses.logits import TemperedLoss, comparable, soft_target
from kd.options.declared import NotNegative, Temperature

LEAST_DEVIATION = 1e-7


def standardised(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 2.0,
    over: Literal["labels", "batch"] = "labels",
    row_weights: Tensor | None = None,
) -> Tensor:
    """Return the soft targets term of standardised logits: the student need not match the teacher's range.

    `soft_target` of ``(z - mean z) / (std z + 1e-7)`` for the logits z of both models, std the unbiased one.
    ``over="labels"``, as in the source: over the classes of a row. ``over="batch"``: over the rows of a class, of
    logits less the mean of their row, so that rows keep their differences in confidence. The mean margin of the batch
    is not taught then, and a single row teaches nothing.

    Returns:
        Scalar >= 0, in nats times temperature^2; 0 where the logits are equal up to scale and shift.

    Source: Sun et al. 2024, https://arxiv.org/abs/2403.01427; over the batch: ours

    >>> teacher = torch.tensor([[0.0, 1.0, 5.0], [3.0, 0.0, 1.0]])
    >>> round(standardised(10 * teacher + 1, teacher).item(), 4)
    0.0
    """
    student, teacher = comparable(student_logits, teacher_logits)
    if over == "batch":
        student, teacher = (logits - logits.mean(-1, keepdim=True) for logits in (student, teacher))
    student, teacher = (_standard_scores(logits, 0 if over == "batch" else -1) for logits in (student, teacher))
    return soft_target(student, teacher, temperature, row_weights)


@final
class Standardised(TemperedLoss):
    """The loss of `standardised`.

    Args:
        temperature: divides both standardised logits.
        over: labels standardises over the classes of a row, batch over the rows of a class.
    """

    def __init__(
        self, temperature: Temperature = 2.0, over: Literal["labels", "batch"] = "labels", weight: NotNegative = 1.0
    ):
        super().__init__(temperature, weight)
        self.over = over
        self.is_mean_over_rows = over == "labels"

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        return standardised(student.logits, teacher.logits, self.temperature, self.over, batch.get("row_weights"))

    def degenerate(self, num_labels: int) -> str | None:
        if num_labels != 2 or self.over == "batch":
            return super().degenerate(num_labels)
        return (
            "two standardised logits are always -0.71 and 0.71, so the teacher's confidence is lost and there is "
            "hardly a gradient; left is which label the teacher prefers: standardise with over=batch instead"
        )


def _standard_scores(logits: Tensor, dim: int) -> Tensor:
    """Return ``(z - mean) / (std + 1e-7)`` along dim; 0, with a finite gradient, where z is constant."""
    centred = logits - logits.mean(dim, keepdim=True)
    # the slope of a norm at 0 is 0 in torch; that of Tensor.std of a single number is NaN
    deviation = torch.linalg.vector_norm(centred, dim=dim, keepdim=True) / max(logits.shape[dim] - 1, 1) ** 0.5
    return centred / (deviation + LEAST_DEVIATION)
