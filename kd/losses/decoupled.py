"""Logit terms that treat the gold class apart from the other classes; only rows with a label count.

The notation is that of `kd.losses.logits`. ``y`` is the gold class of a row, ``N(z)`` the softmax over the C - 1 other
classes. ``labels`` ``[B]`` are class numbers, -100 where there is none.
"""

from __future__ import annotations

from abc import ABC
from typing import final

import torch
from torch import Tensor

from kd.contract import IGNORED_LABEL, Answer, Batch
from kd.losses.logits import TemperedLoss, kl, log_probabilities
from kd.options.declared import NotNegative, Temperature


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float | Tensor = 1.0,
    target_weight: float = 1.0,
    non_target_weight: float = 8.0,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Return the decoupled distillation term: the gold class against the rest, and the others among themselves.

    ``temperature^2 (1/N) sum_b [target_weight KL(b_t || b_s) + non_target_weight KL(N(t / temperature) ||
    N(s / temperature))]``, ``b = (p_y, 1 - p_y)``, over the N rows with a label. `soft_target` is the same with
    the weights 1 and ``1 - p_t(y)``: there the other classes count less, the more certain the teacher is.

    Returns:
        Scalar >= 0, in nats times temperature^2; 0 where the probabilities are equal, or no row has a label.

    Source: Zhao et al. 2022, https://arxiv.org/abs/2203.08679

    >>> student, teacher = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[1.0, 2.0, 0.0]])
    >>> round(dkd(student, teacher, torch.tensor([0])).item(), 4)
    2.6411
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    gold = _gold_column(labels)
    target = kl(_gold_against_rest(teacher, gold), _gold_against_rest(student, gold))
    non_target = kl(_others(teacher, gold), _others(student, gold))
    rows = target_weight * target + non_target_weight * non_target
    return temperature**2 * mean_over_labelled_rows(rows, labels, row_weights)


def nkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float | Tensor = 1.0,
    gamma: float = 1.5,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Return the normalised distillation term: the label loss times the teacher's probability, and the other classes.

    ``-(1/N) sum_b [q_t(y) log q_s(y) + gamma temperature^2 sum_(c != y) N(t / temperature)_c log
    N(s / temperature)_c]``, ``q = softmax(logits)`` untempered, over the N rows with a label. The first part is least
    for a student that is certain of the label, whatever the teacher's output.

    Returns:
        Scalar >= 0, in nats; 0 where no row has a label.

    Source: Yang et al. 2023, https://arxiv.org/abs/2303.13005

    >>> round(nkd(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([0])).item(), 4)  # ln(3) / 3 + 1.5 ln(2)
    1.4059
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, 1.0)
    gold = _gold_column(labels)
    target = -(teacher.gather(1, gold).exp() * student.gather(1, gold)).squeeze(1)
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    non_target = -(_others(teacher, gold).exp() * _others(student, gold)).sum(-1)
    return mean_over_labelled_rows(target + gamma * temperature**2 * non_target, labels, row_weights)


class LabelledLogitLoss(TemperedLoss, ABC):
    """A term that reads the gold labels too; a mean over the rows that have one."""

    def degenerate(self, num_labels: int) -> str | None:
        if num_labels > 1:
            return None
        return (
            f"{type(self).__name__} compares the gold label with the others; with one label there is no other, "
            "and it teaches nothing"
        )


@final
class DKD(LabelledLogitLoss):
    """The loss of `dkd`.

    Args:
        temperature: divides the logits of student and teacher; 4 in the source.
        target_weight: weight of the gold class against the rest; alpha in the source.
        non_target_weight: weight of the other classes among themselves; beta in the source.
    """

    def __init__(
        self,
        temperature: Temperature = 1.0,
        target_weight: NotNegative = 1.0,
        non_target_weight: NotNegative = 8.0,
        weight: NotNegative = 1.0,
    ):
        super().__init__(temperature, weight)
        self.target_weight = target_weight
        self.non_target_weight = non_target_weight

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        options = self.temperature, self.target_weight, self.non_target_weight
        return dkd(student.logits, teacher.logits, batch["labels"], *options, batch.get("row_weights"))

    def degenerate(self, num_labels: int) -> str | None:
        if num_labels != 2:
            return super().degenerate(num_labels)
        return (
            "with two labels there is a single other class, so the part of DKD on the other classes is 0 and "
            "non_target_weight does nothing; left is soft_target times "
            f"target_weight={self.target_weight}, over the rows with a label"
        )


@final
class NKD(LabelledLogitLoss):
    """The loss of `nkd`.

    Args:
        temperature: divides the logits of the other classes; 1 in the source.
        gamma: weight of the other classes.
    """

    def __init__(self, temperature: Temperature = 1.0, gamma: NotNegative = 1.5, weight: NotNegative = 1.0):
        super().__init__(temperature, weight)
        self.gamma = gamma

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        options = self.temperature, self.gamma
        return nkd(student.logits, teacher.logits, batch["labels"], *options, batch.get("row_weights"))

    def degenerate(self, num_labels: int) -> str | None:
        if num_labels != 2:
            return super().degenerate(num_labels)
        return (
            "with two labels there is a single other class, so the part of NKD on the other classes is 0 and "
            "gamma and temperature do nothing; left is the label loss, each row times the teacher's probability "
            "of its label"
        )


def mean_over_labelled_rows(rows: Tensor, labels: Tensor, row_weights: Tensor | None = None) -> Tensor:
    """Return ``(1/N) sum_b w_b row_b`` over the N rows that have a label, from ``[B]``; 0 where none has."""
    labelled = labels != IGNORED_LABEL
    weighted = rows if row_weights is None else row_weights * rows
    return (weighted * labelled).sum() / labelled.sum().clamp(min=1)


def _gold_column(labels: Tensor) -> Tensor:
    """Return the labels as an index ``[B, 1]``, 0 where there is none."""
    return labels.where(labels != IGNORED_LABEL, 0)[:, None]


def _without(log_probabilities: Tensor, gold: Tensor) -> Tensor:
    """Return the log-probabilities with a gold class of probability 0."""
    # the least finite number, because -inf would give NaN where there is one class only
    return log_probabilities.scatter(1, gold, torch.finfo(log_probabilities.dtype).min)


def _gold_against_rest(log_probabilities: Tensor, gold: Tensor) -> Tensor:
    """Return ``(log p_y, log(1 - p_y))``, ``[B, 2]``."""
    rest = _without(log_probabilities, gold).logsumexp(1, keepdim=True)
    return torch.cat([log_probabilities.gather(1, gold), rest], 1)


def _others(log_probabilities: Tensor, gold: Tensor) -> Tensor:
    """Return ``log N``, ``[B, C]``, with 0 in the gold column, which so adds nothing to a sum of ``N(t) log N(s)``."""
    return _without(log_probabilities, gold).log_softmax(1).scatter(1, gold, 0)
