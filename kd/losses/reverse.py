"""Logit terms that measure from the student to the teacher, alone or together with the usual direction.

The notation is that of `kd.losses.logits`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, final

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from kd.contract import Answer, Batch
from kd.losses.logits import TemperedLoss, kl, log_probabilities, mean_over_rows
from kd.options.declared import NotNegative, Share, Temperature


def reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor = 1.0, row_weights: Tensor | None = None
) -> Tensor:
    """Return the Kullback-Leibler divergence of the student from the teacher: the student may leave classes out.

    ``temperature^2 (1/B) sum_b KL(p_s || p_t)``

    Returns:
        Scalar >= 0, in nats times temperature^2; 0 where the probabilities are equal.

    Source: Gu et al. 2024 (MiniLLM), https://arxiv.org/abs/2306.08543
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * mean_over_rows(kl(student, teacher), row_weights)


def symmetric_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    alpha_sym: float = 0.5,
    temperature_form: Literal["softmax", "divide"] = "softmax",
    row_weights: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy from teacher to student, plus that from student to teacher less the student's entropy.

    ``F (alpha_sym CE(p_t, p_s) + (1 - alpha_sym) KL(p_s || p_t))``, ``CE(p, q) = -(1/B) sum_b,c p log q``.
    ``temperature_form="softmax"``: ``F = temperature^2``.
    ``"divide"``: ``F = 1 / temperature`` and ``p = softmax(logits)``, untempered.

    A plain reverse part ``CE(p_s, p_t)`` is least for a student that is certain of the teacher's first choice.
    Less the student's entropy it is ``KL(p_s || p_t)``, and the whole is least where both agree, for every alpha_sym.

    Returns:
        Scalar >= 0, in nats times F; at equality alpha_sym times the teacher's entropy, not 0.

    Source: Wang et al. 2019 (for noisy labels), https://arxiv.org/abs/1908.06112
    """
    divides = temperature_form == "divide"
    student, teacher = log_probabilities(student_logits, teacher_logits, 1.0 if divides else temperature)
    forward = -(teacher.exp() * student).sum(-1)
    rows = alpha_sym * forward + (1 - alpha_sym) * kl(student, teacher)
    return (1 / temperature if divides else temperature**2) * mean_over_rows(rows, row_weights)


def jensen_shannon(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    beta: float = 0.5,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Return the generalised Jensen-Shannon divergence: it is bounded, and symmetric for beta 0.5.

    ``temperature^2 (1/B) sum_b [beta KL(p_t || m) + (1 - beta) KL(p_s || m)]``, ``m = beta p_t + (1 - beta) p_s``.
    Divided by beta it tends to KL(p_t || p_s) for beta -> 0, divided by ``1 - beta`` to KL(p_s || p_t) for
    beta -> 1: near 0 and near 1 the gradients vanish.

    Returns:
        Scalar in ``[0, temperature^2 ln 2]``, in nats times temperature^2; 0 for equal probabilities.

    Source: Agarwal et al. 2024 (GKD), https://arxiv.org/abs/2306.13649
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    rows = beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)
    return temperature**2 * mean_over_rows(rows, row_weights)


@final
class ReverseKL(TemperedLoss):
    """The loss of `reverse_kl`."""

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        return reverse_kl(student.logits, teacher.logits, self.temperature, batch.get("row_weights"))


@final
class SymmetricCrossEntropy(TemperedLoss):
    """The loss of `symmetric_cross_entropy`.

    Args:
        alpha_sym: share of the part from teacher to student.
        temperature_form: softmax divides the logits and multiplies the term by temperature^2; divide leaves the logits
            and divides the term by the temperature.
    """

    def __init__(
        self,
        temperature: Temperature = 1.0,
        alpha_sym: Share = 0.5,
        temperature_form: Literal["softmax", "divide"] = "softmax",
        weight: NotNegative = 1.0,
    ):
        super().__init__(temperature, weight)
        self.alpha_sym = alpha_sym
        self.temperature_form = temperature_form

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        options = self.temperature, self.alpha_sym, self.temperature_form
        return symmetric_cross_entropy(student.logits, teacher.logits, *options, batch.get("row_weights"))


@final
class JensenShannon(TemperedLoss):
    """The loss of `jensen_shannon`.

    Args:
        beta: share of the teacher in the mixture with which both are compared.
    """

    def __init__(
        self, temperature: Temperature = 1.0, beta: Annotated[float, Gt(0), Lt(1)] = 0.5, weight: NotNegative = 1.0
    ):
        super().__init__(temperature, weight)
        self.beta = beta

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        return jensen_shannon(student.logits, teacher.logits, self.temperature, self.beta, batch.get("row_weights"))
