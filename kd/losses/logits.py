"""Transfer terms that compare the student's logits with the teacher's.

Throughout, ``s`` and ``t`` are the logits of student and teacher, ``p_s = softmax(s / temperature)``,
``p_t = softmax(t / temperature)``, B is the number of rows and C of classes. Logits are ``[B, C]``, in any
floating type; all is computed from log-probabilities in float32 (float64 stays float64). A `Loss` detaches
the teacher; the functions leave that to their caller. ``row_weights`` ``[B]``, of mean 1, let some rows count
more. Logits of two shapes raise a `KDError`.

Tempering shrinks the gradient by ``1 / temperature^2``, so every tempered term is multiplied by
``temperature^2`` here, once, and nowhere else: then alpha keeps its meaning when the temperature changes.

With two classes a row holds a single number to be transferred, the margin between its logits; every term
still learns it. With one class a softmax is constant, and `Loss.degenerate` says so.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from kd.contract import Answer, Batch, Loss, number, option, precise
from kd.errors import KDError

REDUCTIONS_OVER_LABELS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda terms: terms.mean(-1),
    "sum": lambda terms: terms.sum(-1),
}

NORMALISATIONS = {"batch": REDUCTIONS_OVER_LABELS["sum"], "labels": REDUCTIONS_OVER_LABELS["mean"]}

# form -> (temperature inside the softmax, factor of the whole term)
TEMPERATURE_FORMS: dict[str, Callable[[float], tuple[float, float]]] = {
    "softmax": lambda temperature: (temperature, temperature**2),
    "divide": lambda temperature: (1.0, 1 / temperature),
}


def soft_target(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, row_weights: Tensor | None = None
) -> Tensor:
    """Kullback-Leibler divergence of the teacher's softened probabilities from the student's.

    ``temperature^2 (1/B) sum_b KL(p_t || p_s)``, with gradient ``temperature (p_s - p_t) / B``; for a high
    temperature it tends to half of `logit_mse` on centred logits.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        temperature: divides both logits, > 0, no unit.

    Returns:
        Scalar >= 0, in nats times temperature^2; 0 where the probabilities are equal.

    Source: Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531

    >>> round(soft_target(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 2.0]]), temperature=2.0).item(), 4)
    0.4438
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * mean_over_rows(_kl(teacher, student), row_weights)


def soft_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    normalisation: str = "batch",
    row_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the student under the teacher's softened probabilities.

    ``-temperature^2 (1/B) sum_b (1/N) sum_c p_t log p_s``, where N is 1 for ``normalisation="batch"`` and
    C for ``"labels"`` (the 1/|V| form, the mean over all B C elements as in TinyBERT's code). The first has
    the same gradient as `soft_target`, the second 1/C of it.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        temperature: divides both logits, > 0, no unit.
        normalisation: ``batch`` or ``labels``.

    Returns:
        Scalar >= 0, in nats times temperature^2; at equality the teacher's entropy, not 0.

    Source: Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531; 1/C: Jiao et al. 2020
    (TinyBERT), https://arxiv.org/abs/1909.10351
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    rows = -NORMALISATIONS[normalisation](teacher.exp() * student)
    return temperature**2 * mean_over_rows(rows, row_weights)


def logit_mse(
    student_logits: Tensor,
    teacher_logits: Tensor,
    centred: bool = False,
    reduction_over_labels: str = "mean",
    row_weights: Tensor | None = None,
) -> Tensor:
    """Squared distance of the logits themselves; no temperature.

    ``(1/B) sum_b (1/N) sum_c (s - t)^2``, where N is C for ``reduction_over_labels="mean"`` and 1 for
    ``"sum"``; centred: ``s - mean_c s`` against ``t - mean_c t``.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        centred: ignore the mean of each row's logits, as a softmax does.
        reduction_over_labels: ``mean`` or ``sum``.

    Returns:
        Scalar >= 0, in squared logits; 0 at equality.

    Source: Ba and Caruana 2014, https://arxiv.org/abs/1312.6184; Tang et al. 2019,
    https://arxiv.org/abs/1903.12136; against KL: Kim et al. 2021, https://arxiv.org/abs/2105.08919
    """
    student, teacher = comparable(student_logits, teacher_logits)
    difference = student - teacher
    if centred:
        difference = difference - difference.mean(-1, keepdim=True)
    return mean_over_rows(REDUCTIONS_OVER_LABELS[reduction_over_labels](difference.square()), row_weights)


def probability_mse(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    reduction_over_labels: str = "mean",
    row_weights: Tensor | None = None,
) -> Tensor:
    """Squared distance of the softened probabilities.

    ``temperature^2 (1/B) sum_b (1/N) sum_c (p_s - p_t)^2``, where N is C for
    ``reduction_over_labels="mean"`` and 1 for ``"sum"``. Where the student is confident its gradient
    vanishes, even if the student is wrong.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        temperature: divides both logits, > 0, no unit.
        reduction_over_labels: ``mean`` or ``sum``.

    Returns:
        Scalar in [0, 2 temperature^2], in squared probabilities times temperature^2; 0 at equality.

    Source: the code of MetaDistil, Zhou, Xu and McAuley 2022, https://arxiv.org/abs/2106.04570
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    squares = (student.exp() - teacher.exp()).square()
    return temperature**2 * mean_over_rows(REDUCTIONS_OVER_LABELS[reduction_over_labels](squares), row_weights)


def symmetric_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    alpha_sym: float = 0.5,
    temperature_form: str = "softmax",
    row_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy from teacher to student, and from student to teacher less the student's entropy.

    ``F (alpha_sym CE(p_t, p_s) + (1 - alpha_sym) KL(p_s || p_t))``, ``CE(p, q) = -(1/B) sum_b,c p log q``;
    ``temperature_form="softmax"``: ``F = temperature^2``;
    ``"divide"``: ``F = 1 / temperature`` and ``p = softmax(logits)``, untempered.

    The reverse part taken as plain ``CE(p_s, p_t)`` is least for a one-hot student at the teacher's argmax;
    with ``p_s`` detached it has no gradient at all, the teacher being fixed. Less the student's entropy it
    is ``KL(p_s || p_t)``, and the whole is least where the two agree, for every alpha_sym.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        temperature: > 0, no unit.
        alpha_sym: share of the part from teacher to student, in [0, 1].
        temperature_form: ``softmax`` or ``divide``.

    Returns:
        Scalar >= 0, in nats times F; at equality alpha_sym times the teacher's entropy, not 0.

    Source: Wang et al. 2019 (for noisy labels), https://arxiv.org/abs/1908.06112
    """
    tempering, factor = TEMPERATURE_FORMS[temperature_form](temperature)
    student, teacher = log_probabilities(student_logits, teacher_logits, tempering)
    rows = alpha_sym * _cross_entropy(teacher, student) + (1 - alpha_sym) * _kl(student, teacher)
    return factor * mean_over_rows(rows, row_weights)


def reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, row_weights: Tensor | None = None
) -> Tensor:
    """Kullback-Leibler divergence of the student from the teacher: the student may leave classes out.

    ``temperature^2 (1/B) sum_b KL(p_s || p_t)``

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        temperature: divides both logits, > 0, no unit.

    Returns:
        Scalar >= 0, in nats times temperature^2; 0 where the probabilities are equal.

    Source: Gu et al. 2024 (MiniLLM), https://arxiv.org/abs/2306.08543
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * mean_over_rows(_kl(student, teacher), row_weights)


def jensen_shannon(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    beta: float = 0.5,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Generalised Jensen-Shannon divergence: bounded, and symmetric for beta 0.5.

    ``temperature^2 (1/B) sum_b [beta KL(p_t || m) + (1 - beta) KL(p_s || m)]``,
    ``m = beta p_t + (1 - beta) p_s``. Divided by beta it tends to KL(p_t || p_s) for beta -> 0, divided by
    ``1 - beta`` to KL(p_s || p_t) for beta -> 1: gradients fade at both ends.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        temperature: divides both logits, > 0, no unit.
        beta: share of the teacher in the mixture, in (0, 1).

    Returns:
        Scalar in ``[0, temperature^2 ln 2]``, in nats times temperature^2; 0 for equal probabilities.

    Source: Agarwal et al. 2024 (GKD), https://arxiv.org/abs/2306.13649
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    rows = beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)
    return temperature**2 * mean_over_rows(rows, row_weights)


class LogitLoss(Loss, ABC):
    """A term on the logits alone; concrete terms say how the two are compared.

    Args:
        weight: factor of this term within the transfer part of the objective, >= 0.

    Raises:
        KDError: an option is outside its range.
    """

    weighs_rows = True

    @abstractmethod
    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        """The term as a scalar, from logits ``[B, C]`` and weights ``[B]`` of mean 1."""

    @final
    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        return self.compare(student.logits, teacher.logits, batch.get("row_weights"))

    def degenerate(self, num_labels: int) -> str | None:
        """With one class, nothing is left of a term that reads only differences between logits."""
        if num_labels > 1:
            return None
        return (
            f"{type(self).__name__} reads differences between the logits of a row; "
            "with one label there is none, and it teaches nothing"
        )


class TemperedLoss(LogitLoss, ABC):
    """A term on softened probabilities.

    Args:
        temperature: divides both logits, > 0.
        weight: factor of this term within the transfer part of the objective, >= 0.

    Raises:
        KDError: an option is outside its range.
    """

    tempered = True

    def __init__(self, temperature: float = 1.0, weight: float = 1.0):
        super().__init__(weight)
        self.temperature = number("temperature", temperature, "a number > 0", lambda value: value > 0)


@final
class SoftTarget(TemperedLoss):
    """`soft_target`: KL(p_t || p_s) temperature^2, mean over the batch.

    Args:
        temperature: divides both logits, > 0.
        weight: factor within the transfer part, >= 0.
    """

    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        return soft_target(student_logits, teacher_logits, self.temperature, row_weights=row_weights)


@final
class SoftCrossEntropy(TemperedLoss):
    """`soft_cross_entropy`: -sum p_t log p_s temperature^2, mean over the batch.

    Args:
        temperature: divides both logits, > 0.
        normalisation: ``batch``, or ``labels`` to divide by the number of classes too.
        weight: factor within the transfer part, >= 0.
    """

    def __init__(self, temperature: float = 1.0, normalisation: str = "batch", weight: float = 1.0):
        super().__init__(temperature, weight)
        self.normalisation = option("normalisation", normalisation, NORMALISATIONS)

    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        return soft_cross_entropy(
            student_logits, teacher_logits, self.temperature, self.normalisation, row_weights=row_weights
        )


@final
class LogitMSE(LogitLoss):
    """`logit_mse`: (s - t)^2, mean over the batch.

    Args:
        centred: ignore the mean of each row's logits.
        reduction_over_labels: ``mean`` or ``sum``.
        weight: factor within the transfer part, >= 0.
    """

    def __init__(self, centred: bool = False, reduction_over_labels: str = "mean", weight: float = 1.0):
        super().__init__(weight)
        self.centred = option("centred", centred, (True, False))
        self.reduction_over_labels = option("reduction_over_labels", reduction_over_labels, REDUCTIONS_OVER_LABELS)

    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        return logit_mse(
            student_logits, teacher_logits, self.centred, self.reduction_over_labels, row_weights=row_weights
        )

    def degenerate(self, num_labels: int) -> str | None:
        """Centred, one logit is 0; as it stands, it is a regression on the teacher's number."""
        return super().degenerate(num_labels) if self.centred else None


@final
class ProbabilityMSE(TemperedLoss):
    """`probability_mse`: (p_s - p_t)^2 temperature^2, mean over the batch.

    Args:
        temperature: divides both logits, > 0.
        reduction_over_labels: ``mean`` or ``sum``.
        weight: factor within the transfer part, >= 0.
    """

    def __init__(self, temperature: float = 1.0, reduction_over_labels: str = "mean", weight: float = 1.0):
        super().__init__(temperature, weight)
        self.reduction_over_labels = option("reduction_over_labels", reduction_over_labels, REDUCTIONS_OVER_LABELS)

    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        return probability_mse(
            student_logits, teacher_logits, self.temperature, self.reduction_over_labels, row_weights=row_weights
        )


@final
class SymmetricCrossEntropy(TemperedLoss):
    """`symmetric_cross_entropy`: alpha_sym CE(p_t, p_s) + (1 - alpha_sym) KL(p_s || p_t), tempered.

    Args:
        temperature: > 0.
        alpha_sym: share of the part from teacher to student, in [0, 1].
        temperature_form: ``softmax`` divides the logits and multiplies the term by temperature^2;
            ``divide`` leaves the logits and divides the term by the temperature.
        weight: factor within the transfer part, >= 0.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        alpha_sym: float = 0.5,
        temperature_form: str = "softmax",
        weight: float = 1.0,
    ):
        super().__init__(temperature, weight)
        self.alpha_sym = number("alpha_sym", alpha_sym, "a number in [0, 1]", lambda value: 0 <= value <= 1)
        self.temperature_form = option("temperature_form", temperature_form, TEMPERATURE_FORMS)

    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        return symmetric_cross_entropy(
            student_logits, teacher_logits, self.temperature, self.alpha_sym, self.temperature_form, row_weights
        )


@final
class ReverseKL(TemperedLoss):
    """`reverse_kl`: KL(p_s || p_t) temperature^2, mean over the batch.

    Args:
        temperature: divides both logits, > 0.
        weight: factor within the transfer part, >= 0.
    """

    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        return reverse_kl(student_logits, teacher_logits, self.temperature, row_weights=row_weights)


@final
class JensenShannon(TemperedLoss):
    """`jensen_shannon`: beta KL(p_t || m) + (1 - beta) KL(p_s || m), temperature^2, mean over the batch.

    Args:
        temperature: divides both logits, > 0.
        beta: share of the teacher in the mixture m, in (0, 1).
        weight: factor within the transfer part, >= 0.
    """

    def __init__(self, temperature: float = 1.0, beta: float = 0.5, weight: float = 1.0):
        super().__init__(temperature, weight)
        self.beta = number("beta", beta, "a number between 0 and 1, ends excluded", lambda value: 0 < value < 1)

    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        return jensen_shannon(student_logits, teacher_logits, self.temperature, self.beta, row_weights=row_weights)


def mean_over_rows(rows: Tensor, row_weights: Tensor | None = None) -> Tensor:
    """``(1/B) sum_b w_b row_b``, from ``[B]`` and weights ``[B]`` of mean 1; the plain mean without weights."""
    return rows.mean() if row_weights is None else (row_weights * rows).mean()


def comparable(student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one precision, float32 at least.

    Raises:
        KDError: logits of two shapes.
    """
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
    """Log-softmax of both, tempered."""
    student, teacher = comparable(student_logits, teacher_logits)
    return (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)


def _cross_entropy(log_first: Tensor, log_second: Tensor) -> Tensor:
    """``-sum_c first log second``, ``[B]``."""
    return -(log_first.exp() * log_second).sum(-1)


def _kl(log_first: Tensor, log_second: Tensor) -> Tensor:
    """``KL(first || second)``, ``[B]``: summed over the classes, so that the mean is over the rows alone."""
    return (log_first.exp() * (log_first - log_second)).sum(-1)
