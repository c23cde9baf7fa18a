"""Transfer terms that compare the logits of student and teacher, and what all files on logits share.

Notation, here and in the files that import this one: ``s`` and ``t`` are the logits of student and teacher, ``[B, C]``
for B rows and C classes, ``p_s = softmax(s / temperature)`` and ``p_t = softmax(t / temperature)``. ``row_weights``
``[B]``, of mean 1, weigh the rows. The temperature, > 0, is a number or a scalar tensor and has no unit.

Division by the temperature shrinks the gradient by ``1 / temperature^2``. Every tempered term is therefore multiplied
by ``temperature^2``, once, here: so alpha keeps its meaning when the temperature changes.

With two classes there is one number a row to learn, the margin between its logits; every term of this file still
teaches it. With one class a softmax is constant, and `Loss.degenerate` says so.
"""

from __future__ import annotations

from abc import ABC
from typing import Literal, final

import torch
from torch import Tensor

from kd.contract import Answer, Batch, Loss, precise
from kd.errors import KDError
from kd.options.declared import NotNegative, Temperature

Reduction = Literal["mean", "sum"]
REDUCTIONS = {"mean": torch.mean, "sum": torch.sum}

Normalisation = Literal["batch", "labels"]
NORMALISATIONS = {"batch": torch.sum, "labels": torch.mean}


def soft_target(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor = 1.0, row_weights: Tensor | None = None
) -> Tensor:
    """Return the Kullback-Leibler divergence of the teacher's softened probabilities from the student's.

    ``temperature^2 (1/B) sum_b KL(p_t || p_s)``, with gradient ``temperature (p_s - p_t) / B``. For a high
    temperature it tends to half of `logit_mse` on centred logits.

    Returns:
        Scalar >= 0, in nats times temperature^2; 0 where the probabilities are equal.

    Source: Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531

    >>> round(soft_target(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 2.0]]), temperature=2.0).item(), 4)
    0.4438
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * mean_over_rows(kl(teacher, student), row_weights)


def soft_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    normalisation: Normalisation = "batch",
    row_weights: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of the student under the teacher's softened probabilities.

    ``-temperature^2 (1/B) sum_b (1/N) sum_c p_t log p_s``, where N is 1 for ``normalisation="batch"`` and C for
    ``"labels"``, the mean over all B C elements. ``"batch"`` has the gradient of `soft_target`, ``"labels"`` 1/C of it.

    Returns:
        Scalar >= 0, in nats times temperature^2; at equality the teacher's entropy, not 0.

    Source: Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531; 1/C: Jiao et al. 2020
    (TinyBERT, in its code), https://arxiv.org/abs/1909.10351
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    rows = -NORMALISATIONS[normalisation](teacher.exp() * student, -1)
    return temperature**2 * mean_over_rows(rows, row_weights)


def logit_mse(
    student_logits: Tensor,
    teacher_logits: Tensor,
    centred: bool = False,
    reduction_over_labels: Reduction = "mean",
    row_weights: Tensor | None = None,
) -> Tensor:
    """Return the squared distance of the logits themselves; it has no temperature.

    ``(1/B) sum_b (1/N) sum_c (s - t)^2``, where N is C for ``reduction_over_labels="mean"`` and 1 for ``"sum"``.
    Centred, it compares ``s - mean_c s`` with ``t - mean_c t``, and so ignores the mean as a softmax does.

    Returns:
        Scalar >= 0, in squared logits; 0 at equality.

    Source: Ba and Caruana 2014, https://arxiv.org/abs/1312.6184; Tang et al. 2019,
    https://arxiv.org/abs/1903.12136; compared with KL: Kim et al. 2021, https://arxiv.org/abs/2105.08919
    """
    student, teacher = comparable(student_logits, teacher_logits)
    difference = student - teacher
    if centred:
        difference = difference - difference.mean(-1, keepdim=True)
    return mean_over_rows(REDUCTIONS[reduction_over_labels](difference.square(), -1), row_weights)


def probability_mse(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    reduction_over_labels: Reduction = "mean",
    row_weights: Tensor | None = None,
) -> Tensor:
    """Return the squared distance of the softened probabilities.

    ``temperature^2 (1/B) sum_b (1/N) sum_c (p_s - p_t)^2``, where N is C for ``reduction_over_labels="mean"`` and 1
    for ``"sum"``. Where the student is confident its gradient vanishes, even if the student is wrong.

    Returns:
        Scalar in [0, 2 temperature^2], in squared probabilities times temperature^2; 0 at equality.

    Source: the code of MetaDistil, Zhou, Xu and McAuley 2022, https://arxiv.org/abs/2106.04570
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    squares = (student.exp() - teacher.exp()).square()
    return temperature**2 * mean_over_rows(REDUCTIONS[reduction_over_labels](squares, -1), row_weights)


class LogitLoss(Loss, ABC):
    """A term on the logits alone, a mean over rows unless a subclass says otherwise."""

    weighs_rows = True
    is_mean_over_rows = True

    def degenerate(self, num_labels: int) -> str | None:
        if num_labels > 1:
            return None
        return (
            f"{type(self).__name__} compares the differences between the logits of a row; "
            "with one label there is no difference, and it teaches nothing"
        )


class TemperedLoss(LogitLoss, ABC):
    """A term on softened probabilities.

    Args:
        temperature: divides the logits of student and teacher.
    """

    tempered = True

    def __init__(self, temperature: Temperature = 1.0, weight: NotNegative = 1.0):
        super().__init__(weight)
        self.temperature = temperature


@final
class SoftTarget(TemperedLoss):
    """The loss of `soft_target`."""

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        return soft_target(student.logits, teacher.logits, self.temperature, batch.get("row_weights"))


@final
class SoftCrossEntropy(TemperedLoss):
    """The loss of `soft_cross_entropy`.

    Args:
        normalisation: batch sums over the classes, labels takes their mean.
    """

    def __init__(
        self, temperature: Temperature = 1.0, normalisation: Normalisation = "batch", weight: NotNegative = 1.0
    ):
        super().__init__(temperature, weight)
        self.normalisation = normalisation

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        options = self.temperature, self.normalisation
        return soft_cross_entropy(student.logits, teacher.logits, *options, batch.get("row_weights"))


@final
class LogitMSE(LogitLoss):
    """The loss of `logit_mse`.

    Args:
        centred: ignore the mean of each row's logits.
        reduction_over_labels: mean or sum over the classes.
    """

    def __init__(self, centred: bool = False, reduction_over_labels: Reduction = "mean", weight: NotNegative = 1.0):
        super().__init__(weight)
        self.centred = centred
        self.reduction_over_labels = reduction_over_labels

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        options = self.centred, self.reduction_over_labels
        return logit_mse(student.logits, teacher.logits, *options, batch.get("row_weights"))

    def degenerate(self, num_labels: int) -> str | None:
        # uncentred, it is a regression on the teacher's logits, and works for a single one
        return super().degenerate(num_labels) if self.centred else None


@final
class ProbabilityMSE(TemperedLoss):
    """The loss of `probability_mse`.

    Args:
        reduction_over_labels: mean or sum over the classes.
    """

    def __init__(
        self, temperature: Temperature = 1.0, reduction_over_labels: Reduction = "mean", weight: NotNegative = 1.0
    ):
        super().__init__(temperature, weight)
        self.reduction_over_labels = reduction_over_labels

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        options = self.temperature, self.reduction_over_labels
        return probability_mse(student.logits, teacher.logits, *options, batch.get("row_weights"))


def mean_over_rows(rows: Tensor, row_weights: Tensor | None = None) -> Tensor:
    """Return ``(1/B) sum_b w_b row_b``, from ``[B]`` and weights ``[B]`` of mean 1; the plain mean without weights."""
    return rows.mean() if row_weights is None else (row_weights * rows).mean()


def comparable(student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in one precision, float32 at least; refuse logits of two shapes."""
    if student_logits.shape != teacher_logits.shape:
        raise KDError(
            "student and teacher must give logits of one shape [rows, labels], found student "
            f"{list(student_logits.shape)} and teacher {list(teacher_logits.shape)}; "
            "take a teacher that was fine-tuned on the labels of this data set"
        )
    precision = torch.promote_types(precise(student_logits).dtype, teacher_logits.dtype)
    return student_logits.to(precision), teacher_logits.to(precision)


def log_probabilities(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return the log-softmax of both, tempered."""
    student, teacher = comparable(student_logits, teacher_logits)
    return (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)


def kl(log_first: Tensor, log_second: Tensor) -> Tensor:
    """Return ``KL(first || second)`` of each row, ``[B]``, from log-probabilities."""
    return (log_first.exp() * (log_first - log_second)).sum(-1)
