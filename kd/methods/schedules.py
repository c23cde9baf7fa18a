"""What decides the balance over time and over rows: schedules of alpha and temperature, confidence in the teacher.

``progress`` is the share of the optimizer steps that are done, in [0, 1].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor, nn

from kd.contract import number, precise

# --- schedules


class Schedule(ABC):
    """A value that training goes along with."""

    @abstractmethod
    def at(self, progress: float) -> float | Tensor:
        """The value at this share of the training; a 0-dim tensor with a graph where it is learned."""

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value that `at` can give; the fixed schedules are monotone."""
        ends = self.at(0.0), self.at(1.0)
        return min(ends), max(ends)


@final
class Constant(Schedule):
    """``value``, always.

    Args:
        value: of alpha or of the temperature.
    """

    def __init__(self, value: float):
        self.value = _any_number("value", value)

    def at(self, progress: float) -> float:
        return self.value


@final
class Linear(Schedule):
    """``(1 - x) start + x end``, ``x = min(progress / until, 1)``.

    Args:
        start: value at the first step.
        end: value from ``until`` on.
        until: share of the training, in (0, 1].

    Source: Clark et al. 2019 (teacher annealing), https://arxiv.org/abs/1907.04829

    >>> Linear(1.0, 0.5).at(0.5)
    0.75
    """

    def __init__(self, start: float, end: float, until: float = 1.0):
        self.start, self.end, self.until = _any_number("start", start), _any_number("end", end), _share("until", until)

    def at(self, progress: float) -> float:
        return _between(self.start, self.end, min(progress / self.until, 1.0))


@final
class Cosine(Schedule):
    """``(1 - x) start + x end``, ``x = (1 - cos(pi min(progress / until, 1))) / 2``: slow at both ends.

    Args:
        start: value at the first step.
        end: value from ``until`` on.
        until: share of the training, in (0, 1].

    Source: Loshchilov and Hutter 2017 (the shape), https://arxiv.org/abs/1608.03983
    """

    def __init__(self, start: float, end: float, until: float = 1.0):
        self.start, self.end, self.until = _any_number("start", start), _any_number("end", end), _share("until", until)

    def at(self, progress: float) -> float:
        return _between(self.start, self.end, (1 - math.cos(math.pi * min(progress / self.until, 1.0))) / 2)


@final
class WarmUp(Schedule):
    """``value min(progress / until, 1)``: from 0, for alpha.

    Args:
        value: from ``until`` on.
        until: share of the training, in (0, 1].

    Source: Zhao et al. 2022 (DKD), https://arxiv.org/abs/2203.08679
    """

    def __init__(self, value: float, until: float = 0.1):
        self.value, self.until = _any_number("value", value), _share("until", until)

    def at(self, progress: float) -> float:
        return self.value * min(progress / self.until, 1.0)


@final
class TemperatureWarmUp(Schedule):
    """``1 + (value - 1) min(progress / until, 1)``: from the teacher's own probabilities to tempered ones.

    Args:
        value: temperature from ``until`` on.
        until: share of the training, in (0, 1].
    """

    def __init__(self, value: float, until: float = 0.1):
        self.value, self.until = _any_number("value", value), _share("until", until)

    def at(self, progress: float) -> float:
        return _between(1.0, self.value, min(progress / self.until, 1.0))


@final
class AnnealedTemperature(Schedule):
    """``max_temperature, ..., 2, 1``, equally long each before ``until``; 1 from there on.

    ``max(1, max_temperature - floor(max_temperature progress / until))``

    Args:
        max_temperature: whole number >= 1.
        until: share of the training, in (0, 1].

    Source: Jafari et al. 2021 (Annealing-KD, phase 1), https://arxiv.org/abs/2104.07163

    >>> [AnnealedTemperature(3, until=0.5).at(step / 8) for step in range(9)]
    [3, 3, 2, 1, 1, 1, 1, 1, 1]
    """

    def __init__(self, max_temperature: int = 8, until: float = 0.5):
        self.max_temperature = number(
            "max_temperature", max_temperature, "a whole number >= 1", lambda value: value >= 1 and value % 1 == 0
        )
        self.until = _share("until", until)

    def at(self, progress: float) -> float:
        return max(1, self.max_temperature - math.floor(self.max_temperature * progress / self.until))


@final
class Switch(Schedule):
    """``first`` before ``until``, ``second`` from there on.

    Args:
        first, second: the two values; for alpha, 1 is the teacher alone and 0 the labels alone.
        until: share of the training, in (0, 1].

    Source: Jafari et al. 2021 (Annealing-KD, phases 1 and 2), https://arxiv.org/abs/2104.07163
    """

    def __init__(self, first: float = 1.0, second: float = 0.0, until: float = 0.5):
        self.first, self.second = _any_number("first", first), _any_number("second", second)
        self.until = _share("until", until)

    def at(self, progress: float) -> float:
        return self.first if progress < self.until else self.second


@final
class LearnedTemperature(nn.Module, Schedule):
    """A temperature that learns to make the student's task harder, while the student learns to solve it (CTKD).

    ``lowest + (highest - lowest) sigmoid(theta)``; the gradient for theta is multiplied by ``-lambda``,
    ``lambda = reversal (1 - cos(pi min(progress / until, 1))) / 2``. Optimizers that divide a gradient by its
    own size, such as Adam, keep the sign of lambda and lose most of its size.

    Args:
        start: temperature at the first step, strictly between lowest and highest.
        lowest: > 0.
        highest: > lowest.
        reversal: lambda from ``until`` on, >= 0; 0 leaves the temperature at its start.
        until: share of the training, in (0, 1].

    Raises:
        KDError: an option is outside its range.

    Source: Li et al. 2023, https://arxiv.org/abs/2211.16231
    """

    def __init__(
        self,
        start: float = 4.0,
        lowest: float = 1.0,
        highest: float = 21.0,
        reversal: float = 1.0,
        until: float = 0.5,
    ):
        super().__init__()
        self.lowest = number("lowest", lowest, "a number > 0", lambda value: value > 0)
        self.highest = number("highest", highest, f"a number above lowest {lowest}", lambda value: value > lowest)
        expected = f"a number between lowest {lowest} and highest {highest}, ends excluded"
        number("start", start, expected, lambda value: lowest < value < highest)
        number("reversal", reversal, "a number >= 0", lambda value: value >= 0)
        self.strength = Cosine(0.0, reversal, until)
        self.theta = nn.Parameter(torch.tensor([math.log((start - lowest) / (highest - start))]))  # FSDP cuts no scalar

    def forward(self, progress: float) -> Tensor:
        """The temperature, 0-dim, in float32 at least, with the reversed gradient."""
        temperature = _between(self.lowest, self.highest, precise(self.theta)[0].sigmoid())
        constant = temperature.detach()
        return constant - self.strength.at(progress) * (temperature - constant)

    def at(self, progress: float) -> Tensor:
        return self(progress)

    def bounds(self) -> tuple[float, float]:
        return self.lowest, self.highest


def _between(start: float, end: float, share: float | Tensor) -> float | Tensor:
    return (1 - share) * start + share * end


def _any_number(name: str, value: float) -> float:
    return number(name, value, "a number", lambda value: True)


def _share(name: str, value: float) -> float:
    return number(name, value, "a share of the training in (0, 1]", lambda value: 0 < value <= 1)


# --- confidence in the teacher, row by row
