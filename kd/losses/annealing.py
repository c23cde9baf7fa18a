"""The term of Annealing-KD: a regression on the teacher's logits that grow in training.

The notation is that of `kd.losses.logits`.
"""

from __future__ import annotations

from typing import Annotated, final

from annotated_types import Ge, Le
from torch import Tensor

from kd.contract import Answer, Batch
from kd.errors import OptionError
from kd.losses.logits import TemperedLoss, comparable, mean_over_rows
from kd.options.declared import Finite, NotNegative

AtLeastOne = Annotated[Finite, Ge(1), Le(1000)]


def annealing(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    max_temperature: float = 8.0,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Return the squared distance from the teacher's logits, which are shrunk until the temperature is 1.

    ``(1/B) sum_b (1/C) sum_c (s - t (1 - (temperature - 1) / max_temperature))^2``; a schedule of the method lowers the
    temperature from max_temperature to 1 in training.

    Returns:
        Scalar >= 0, in squared logits; 0 at the shrunk target.

    Source: Jafari et al. 2021, https://arxiv.org/abs/2104.07163

    >>> import torch
    >>> annealing(torch.zeros(1, 2), torch.tensor([[4.0, 4.0]]), temperature=5, max_temperature=8).item()
    4.0
    """
    student, teacher = comparable(student_logits, teacher_logits)
    target = teacher * (1 - (temperature - 1) / max_temperature)
    return mean_over_rows((student - target).square().mean(-1), row_weights)


@final
class Annealing(TemperedLoss):
    """The loss of `annealing`.

    Args:
        temperature: shrinks the teacher's logits and divides none; at most max_temperature.
        max_temperature: temperature at the start of training, where it divides the teacher's logits.
    """

    def __init__(self, temperature: AtLeastOne = 1.0, max_temperature: AtLeastOne = 8.0, weight: NotNegative = 1.0):
        super().__init__(temperature, weight)
        if temperature > max_temperature:
            raise OptionError("temperature", f"a number from 1 to max_temperature={max_temperature}", temperature)
        self.max_temperature = self.highest_temperature = max_temperature

    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        options = self.temperature, self.max_temperature
        return annealing(student.logits, teacher.logits, *options, batch.get("row_weights"))

    def degenerate(self, num_labels: int) -> str | None:
        return None  # a regression on the teacher's logits, which works for a single one
