"""Logit terms that take the logits apart: by the gold class, over the batch, or standardised.

Notation and conventions are those of `kd.losses.logits`; ``y`` is the gold class of a row, ``N(z)`` the softmax
without it, over the C - 1 other classes. ``temperature`` may be a scalar tensor, a learned one too.

With two classes, most of what is taken apart here is a constant: each `Loss` says in `degenerate` what is left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from kd.contract import IGNORED_LABEL, Answer, Batch, Loss, number, option
from kd.losses.logits import TemperedLoss, comparable, log_probabilities, mean_over_rows, soft_target

# A spread of probabilities below 1e-4 counts as none: what correlates there is rounding.
LEAST_SQUARED_NORM = 1e-8

LEAST_DEVIATION = 1e-7

STANDARDISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "labels": lambda logits: _standard_scores(logits, -1),
    "batch": lambda logits: _standard_scores(logits - logits.mean(-1, keepdim=True), 0),
}


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float | Tensor = 1.0,
    target_weight: float = 1.0,
    non_target_weight: float = 8.0,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Decoupled distillation: how sure of the gold class, and how the others share the rest, weighed apart.

    ``temperature^2 (1/N) sum_b [target_weight KL(b_t || b_s) + non_target_weight KL(N(t / temperature) ||
    N(s / temperature))]``, ``b = (p_y, 1 - p_y)``, over the N rows with a label. `soft_target` is the same
    with weights 1 and ``1 - p_t(y)``: the surer the teacher, the less its other classes count there.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        labels: ``[B]``, class numbers, -100 where there is none.
        temperature: divides both logits, > 0, no unit; 4 in the source.
        target_weight: of the gold class against the rest, >= 0; alpha in the source.
        non_target_weight: of the other classes among themselves, >= 0; beta in the source.

    Returns:
        Scalar >= 0, in nats times temperature^2; 0 where the probabilities are equal, or no row has a label.

    Source: Zhao et al. 2022, https://arxiv.org/abs/2203.08679

    >>> student, teacher = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[1.0, 2.0, 0.0]])
    >>> round(dkd(student, teacher, torch.tensor([0])).item(), 4)
    2.6411
    """
    student, teacher = log_probabilities(student_logits, teacher_logits, temperature)
    gold = _gold_column(labels)
    target = _kl(_gold_against_rest(teacher, gold), _gold_against_rest(student, gold))
    non_target = _kl(_others(teacher, gold), _others(student, gold))
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
    """Normalised distillation: the label loss times the teacher's trust in the label, and the other classes.

    ``-(1/N) sum_b [q_t(y) log q_s(y) + gamma temperature^2 sum_(c != y) N(t / temperature)_c log
    N(s / temperature)_c]``, ``q = softmax(logits)`` untempered, over the N rows with a label. The first part
    is least for a student that is sure of the label, whatever the teacher says.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        labels: ``[B]``, class numbers, -100 where there is none.
        temperature: divides the logits of the other classes, > 0, no unit; 1 in the source.
        gamma: weight of the other classes, >= 0.

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


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
) -> Tensor:
    """Correlation instead of equality: of the classes in a row, and of the rows in a class.

    ``temperature^2 [inter_weight (1 - mean_b r(p_s[b, :], p_t[b, :])) + intra_weight (1 - mean_c r(p_s[:, c],
    p_t[:, c]))]``, r Pearson's correlation, 0 where one side is constant. The second part needs two rows,
    is 0 for one, and needs some 32 to mean much.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        temperature: divides both logits, > 0, no unit; 1 to 4 in the source.
        inter_weight: of the correlation over the classes, >= 0; beta in the source.
        intra_weight: of the correlation over the batch, >= 0; gamma in the source.

    Returns:
        Scalar in ``[0, 2 temperature^2 (inter_weight + intra_weight)]``, no unit otherwise; 0 at equality.

    Source: Huang et al. 2022, https://arxiv.org/abs/2205.10536
    """
    student, teacher = (side.exp() for side in log_probabilities(student_logits, teacher_logits, temperature))
    term = inter_weight * (1 - _correlation(student, teacher, 1).mean())
    if len(student) > 1:
        term = term + intra_weight * (1 - _correlation(student, teacher, 0).mean())
    return temperature**2 * term


def standardised(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 2.0,
    over: str = "labels",
    row_weights: Tensor | None = None,
) -> Tensor:
    """Soft targets of standardised logits: the student need not match the teacher's range.

    `soft_target` of ``(z - mean z) / (std z + 1e-7)``, std the unbiased one, for both z. ``over="labels"``: over the
    classes of a row, as in the source. ``"batch"``: over the rows of a class, of logits less their row's mean, so
    that a row keeps its confidence among the others; the mean margin of the batch is not taught then, and one row
    alone teaches nothing.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        temperature: divides both standardised logits, > 0, no unit.
        over: ``labels`` or ``batch``.

    Returns:
        Scalar >= 0, in nats times temperature^2; 0 where one's logits are the other's, stretched and shifted.

    Source: Sun et al. 2024, https://arxiv.org/abs/2403.01427; over the batch: ours

    >>> teacher = torch.tensor([[0.0, 1.0, 5.0], [3.0, 0.0, 1.0]])
    >>> round(standardised(10 * teacher + 1, teacher).item(), 4)
    0.0
    """
    student, teacher = comparable(student_logits, teacher_logits)
    standardise = STANDARDISATIONS[over]
    return soft_target(standardise(student), standardise(teacher), temperature, row_weights)


def annealing(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    max_temperature: float = 8.0,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Squared distance from the teacher's logits, shrunk at first and at full size when the temperature is 1.

    ``(1/B) sum_b (1/C) sum_c (s - t (1 - (temperature - 1) / max_temperature))^2``; the temperature is to fall from
    max_temperature to 1 in training, as a schedule of the method.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``; a constant, unless the caller left it its graph.
        temperature: in [1, max_temperature], no unit; divides no logits.
        max_temperature: at which the target is 1 / max_temperature of the teacher's logits, >= 1.

    Returns:
        Scalar >= 0, in squared logits; 0 at the shrunk target.

    Source: Jafari et al. 2021, https://arxiv.org/abs/2104.07163

    >>> annealing(torch.zeros(1, 2), torch.tensor([[4.0, 4.0]]), temperature=5, max_temperature=8).item()
    4.0
    """
    student, teacher = comparable(student_logits, teacher_logits)
    target = teacher * (1 - (temperature - 1) / max_temperature)
    return mean_over_rows((student - target).square().mean(-1), row_weights)


class LabelledLogitLoss(Loss, ABC):
    """A tempered term on the logits that reads the gold labels too, and only rows that have one.

    Args:
        temperature: divides both logits, > 0.
        weight: factor of this term within the transfer part of the objective, >= 0.

    Raises:
        KDError: an option is outside its range.
    """

    weighs_rows = True
    tempered = True

    def __init__(self, temperature: float = 1.0, weight: float = 1.0):
        super().__init__(weight)
        self.temperature = number("temperature", temperature, "a number > 0", lambda value: value > 0)

    @abstractmethod
    def compare(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, row_weights: Tensor | None
    ) -> Tensor:
        """The term as a scalar, from logits ``[B, C]``, labels ``[B]`` and weights ``[B]`` of mean 1."""

    @final
    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        return self.compare(student.logits, teacher.logits, batch["labels"], batch.get("row_weights"))

    def degenerate(self, num_labels: int) -> str | None:
        """With one class, there is no other to tell the gold class from."""
        if num_labels > 1:
            return None
        return (
            f"{type(self).__name__} tells the gold label from the others; with one label there is no other, "
            "and it teaches nothing"
        )


@final
class DKD(LabelledLogitLoss):
    """`dkd`: target_weight TCKD + non_target_weight NCKD, temperature^2, mean over the labelled rows.

    Args:
        temperature: divides both logits, > 0.
        target_weight: of the gold class against the rest, >= 0.
        non_target_weight: of the other classes among themselves, >= 0.
        weight: factor within the transfer part, >= 0.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        target_weight: float = 1.0,
        non_target_weight: float = 8.0,
        weight: float = 1.0,
    ):
        super().__init__(temperature, weight)
        self.target_weight = _share("target_weight", target_weight)
        self.non_target_weight = _share("non_target_weight", non_target_weight)

    def compare(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, row_weights: Tensor | None
    ) -> Tensor:
        return dkd(
            student_logits,
            teacher_logits,
            labels,
            self.temperature,
            self.target_weight,
            self.non_target_weight,
            row_weights,
        )

    def degenerate(self, num_labels: int) -> str | None:
        """With two classes, one is left beside the gold one, and takes all of the rest."""
        if num_labels != 2:
            return super().degenerate(num_labels)
        return (
            "the part of DKD on the other classes is 0, there being only one, and non_target_weight does nothing; "
            f"left is soft_target times target_weight={self.target_weight}, over the rows with a label"
        )


@final
class NKD(LabelledLogitLoss):
    """`nkd`: -q_t(y) log q_s(y) and gamma temperature^2 times the other classes, mean over the labelled rows.

    Args:
        temperature: divides the logits of the other classes, > 0.
        gamma: weight of the other classes, >= 0.
        weight: factor within the transfer part, >= 0.
    """

    def __init__(self, temperature: float = 1.0, gamma: float = 1.5, weight: float = 1.0):
        super().__init__(temperature, weight)
        self.gamma = _share("gamma", gamma)

    def compare(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, row_weights: Tensor | None
    ) -> Tensor:
        return nkd(student_logits, teacher_logits, labels, self.temperature, self.gamma, row_weights)

    def degenerate(self, num_labels: int) -> str | None:
        """With two classes, one is left beside the gold one, and its share of the rest is always 1."""
        if num_labels != 2:
            return super().degenerate(num_labels)
        return (
            "the part of NKD on the other classes is 0, there being only one, and gamma and temperature do nothing; "
            "left is the label loss, each row times the teacher's probability of its label"
        )


@final
class DIST(TemperedLoss):
    """`dist`: 1 - Pearson's correlation over the classes and over the batch, temperature^2.

    Args:
        temperature: divides both logits, > 0.
        inter_weight: of the correlation over the classes, >= 0.
        intra_weight: of the correlation over the batch, >= 0.
        weight: factor within the transfer part, >= 0.
    """

    weighs_rows = False

    def __init__(
        self,
        temperature: float = 1.0,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        weight: float = 1.0,
    ):
        super().__init__(temperature, weight)
        self.inter_weight = _share("inter_weight", inter_weight)
        self.intra_weight = _share("intra_weight", intra_weight)

    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        return dist(student_logits, teacher_logits, self.temperature, self.inter_weight, self.intra_weight)

    @property
    def is_mean_over_rows(self) -> bool:
        return not self.intra_weight

    def degenerate(self, num_labels: int) -> str | None:
        """With two classes, the correlation of a row is 1 or -1, a step without slope."""
        if num_labels != 2:
            return super().degenerate(num_labels)
        return (
            "two probabilities correlate with 1 or -1, and the part of DIST over the classes has no gradient; "
            f"left is the part over the batch, times intra_weight={self.intra_weight}"
        )


@final
class Standardised(TemperedLoss):
    """`standardised`: KL(p_t || p_s) temperature^2 of standardised logits, mean over the batch.

    Args:
        temperature: divides both standardised logits, > 0.
        over: ``labels`` or ``batch``.
        weight: factor within the transfer part, >= 0.
    """

    def __init__(self, temperature: float = 2.0, over: str = "labels", weight: float = 1.0):
        super().__init__(temperature, weight)
        self.over = option("over", over, STANDARDISATIONS)

    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        return standardised(student_logits, teacher_logits, self.temperature, self.over, row_weights)

    def degenerate(self, num_labels: int) -> str | None:
        """With two classes, a standardised row is the same for every margin; over the batch it is not."""
        if num_labels != 2 or self.over == "batch":
            return super().degenerate(num_labels)
        return (
            "two standardised logits are always -0.71 and 0.71, the teacher's confidence is lost and there is hardly "
            "a gradient; left is which label the teacher prefers, so standardise with over=batch instead"
        )


@final
class Annealing(TemperedLoss):
    """`annealing`: (s - t (1 - (temperature - 1) / max_temperature))^2, mean over labels and batch.

    Args:
        temperature: in [1, max_temperature]; the method may lower it at each step.
        max_temperature: where the temperature starts, >= 1.
        weight: factor within the transfer part, >= 0.
    """

    def __init__(self, temperature: float = 1.0, max_temperature: float = 8.0, weight: float = 1.0):
        super().__init__(temperature, weight)
        self.max_temperature = number("max_temperature", max_temperature, "a number >= 1", lambda value: value >= 1)
        number(
            "temperature",
            temperature,
            f"a number from 1 to max_temperature={max_temperature}",
            lambda value: 1 <= value <= max_temperature,
        )
        self.highest_temperature = max_temperature

    def compare(self, student_logits: Tensor, teacher_logits: Tensor, row_weights: Tensor | None) -> Tensor:
        return annealing(student_logits, teacher_logits, self.temperature, self.max_temperature, row_weights)

    def degenerate(self, num_labels: int) -> str | None:
        """A regression on the teacher's numbers, however few."""
        return None


def mean_over_labelled_rows(rows: Tensor, labels: Tensor, row_weights: Tensor | None = None) -> Tensor:
    """``(1/N) sum_b w_b row_b`` over the N rows that have a label, from ``[B]``; 0 where none has."""
    labelled = labels != IGNORED_LABEL
    weighted = rows if row_weights is None else row_weights * rows
    return (weighted * labelled).sum() / labelled.sum().clamp(min=1)


def _gold_column(labels: Tensor) -> Tensor:
    """The labels as an index ``[B, 1]``, 0 where there is none."""
    return labels.where(labels != IGNORED_LABEL, 0)[:, None]


def _without(log_probabilities: Tensor, gold: Tensor) -> Tensor:
    """The gold class at the least finite number, probability 0; with -inf, one label would give NaN."""
    return log_probabilities.scatter(1, gold, torch.finfo(log_probabilities.dtype).min)


def _gold_against_rest(log_probabilities: Tensor, gold: Tensor) -> Tensor:
    """``(log p_y, log(1 - p_y))``, ``[B, 2]``."""
    rest = _without(log_probabilities, gold).logsumexp(1, keepdim=True)
    return torch.cat([log_probabilities.gather(1, gold), rest], 1)


def _others(log_probabilities: Tensor, gold: Tensor) -> Tensor:
    """``log N``, ``[B, C]``, and 0 in the gold column, where it adds nothing to a sum of ``N(t) log N(s)``."""
    return _without(log_probabilities, gold).log_softmax(1).scatter(1, gold, 0)


def _kl(log_first: Tensor, log_second: Tensor) -> Tensor:
    """``KL(first || second)``, ``[B]``."""
    return functional.kl_div(log_second, log_first, reduction="none", log_target=True).sum(-1)


def _correlation(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Pearson's correlation along dim; 0, with a finite gradient, where one side is constant."""
    first, second = (side - side.mean(dim, keepdim=True) for side in (first, second))
    squared_norms = [side.square().sum(dim) + LEAST_SQUARED_NORM for side in (first, second)]
    return (first * second).sum(dim) / (squared_norms[0] * squared_norms[1]).sqrt()


def _standard_scores(logits: Tensor, dim: int) -> Tensor:
    """``(z - mean) / (std + 1e-7)`` along dim; 0, with a finite gradient, where z is constant."""
    centred = logits - logits.mean(dim, keepdim=True)
    # the slope of a norm at 0 is 0 in torch; that of Tensor.std of a single number is NaN
    deviation = torch.linalg.vector_norm(centred, dim=dim, keepdim=True) / max(logits.shape[dim] - 1, 1) ** 0.5
    return centred / (deviation + LEAST_DEVIATION)


def _share(name: str, value: float) -> float:
    return number(name, value, "a number >= 0", lambda value: value >= 0)
