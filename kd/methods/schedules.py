"""Change alpha or the temperature in training.

``progress`` is the share of the optimizer steps that are done: 0 at the first step, 1 at the end.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, final

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from kd.contract import precise
from kd.errors import OptionError
from kd.options.declared import Checked, Finite, NotNegative, Share, Temperature

PartOfTraining = Annotated[float, Gt(0), Le(1)]


class Schedule(Checked, ABC):
    """A value that may change in training. It only rises, or it only falls."""

    @abstractmethod
    def at(self, progress: float) -> float:
        """Return the value at this progress."""

    def bounds(self) -> tuple[float, float]:
        """Return the lowest and the highest value of `at`."""
        ends = self.at(0.0), self.at(1.0)
        return min(ends), max(ends)


@final
class Constant(Schedule):
    """``value``, always.

    Args:
        value: alpha or the temperature.
    """

    def __init__(self, value: Finite):
        self.value = value

    def at(self, progress: float) -> float:
        return self.value


class Ramp(Schedule, ABC):
    """A value that moves from one end to the other and then stays.

    Args:
        start: value at the first step.
        end: value at the progress ``until`` and at all later steps.
        until: progress at which the end is reached.
    """

    def __init__(self, start: Finite, end: Finite, until: PartOfTraining = 1.0):
        self.start, self.end, self.until = start, end, until

    def at(self, progress: float) -> float:
        x = self.shape(min(progress / self.until, 1.0))
        return (1 - x) * self.start + x * self.end

    def shape(self, part: float) -> float:
        """Return how much of the way is done, in [0, 1], after this part of the time, in [0, 1]."""
        return part


@final
class Linear(Ramp):
    """``(1 - x) start + x end``, ``x = min(progress / until, 1)``.

    Source: Clark et al. 2019 (teacher annealing), https://arxiv.org/abs/1907.04829

    >>> Linear(1.0, 0.5).at(0.5)
    0.75
    """


@final
class Cosine(Ramp):
    """``(1 - x) start + x end``, ``x = (1 - cos(pi min(progress / until, 1))) / 2``: it changes slowly at both ends.

    Source: Loshchilov and Hutter 2017 (the shape), https://arxiv.org/abs/1608.03983
    """

    def shape(self, part: float) -> float:
        return (1 - math.cos(math.pi * part)) / 2


@final
class WarmUp(Ramp):
    """``value min(progress / until, 1)``: alpha rises from 0.

    Args:
        value: alpha at the progress ``until`` and at all later steps.
        until: progress at which the value is reached.

    Source: Zhao et al. 2022 (DKD), https://arxiv.org/abs/2203.08679
    """

    def __init__(self, value: Share, until: PartOfTraining = 0.1):
        super().__init__(0.0, value, until)


@final
class TemperatureWarmUp(Ramp):
    """``1 + (value - 1) min(progress / until, 1)``: the temperature moves from 1 to its value.

    Args:
        value: temperature at the progress ``until`` and at all later steps.
        until: progress at which the value is reached.
    """

    def __init__(self, value: Temperature, until: PartOfTraining = 0.1):
        super().__init__(1.0, value, until)


@final
class AnnealedTemperature(Schedule):
    """``max_temperature, ..., 2, 1``, each for the same time, up to the progress ``until``; then it stays 1.

    ``max(1, max_temperature - floor(max_temperature progress / until))``

    Args:
        max_temperature: temperature at the first step.
        until: progress up to which the time is divided among the temperatures.

    Source: Jafari et al. 2021 (Annealing-KD, phase 1), https://arxiv.org/abs/2104.07163

    >>> [AnnealedTemperature(3, until=0.5).at(step / 8) for step in range(9)]
    [3, 3, 2, 1, 1, 1, 1, 1, 1]
    """

    def __init__(self, max_temperature: Annotated[int, Ge(1), Le(1000)] = 8, until: PartOfTraining = 0.5):
        self.max_temperature, self.until = max_temperature, until

    def at(self, progress: float) -> float:
        return max(1, self.max_temperature - math.floor(self.max_temperature * progress / self.until))


@final
class Switch(Schedule):
    """``first`` while the progress is below ``until``, ``second`` at all later steps.

    Args:
        first, second: the two values; an alpha of 1 is the teacher alone, 0 the labels alone.
        until: progress at which the value changes.

    Source: Jafari et al. 2021 (Annealing-KD, phases 1 and 2), https://arxiv.org/abs/2104.07163
    """

    def __init__(self, first: Finite = 1.0, second: Finite = 0.0, until: PartOfTraining = 0.5):
        self.first, self.second, self.until = first, second, until

    def at(self, progress: float) -> float:
        return self.first if progress < self.until else self.second


@final
class LearnedTemperature(nn.Module, Checked):
    """A temperature that is trained to raise the student's loss, while the student is trained to lower it (CTKD).

    ``lowest + (highest - lowest) sigmoid(theta)``; the gradient for theta is multiplied by ``-lambda``,
    ``lambda = reversal (1 - cos(pi min(progress / until, 1))) / 2``. Adam divides each gradient by its own size: with
    such an optimizer the sign of lambda counts, and its size hardly does.

    Args:
        start: temperature at the first step, strictly between lowest and highest.
        lowest: lower bound of the temperature.
        highest: upper bound of the temperature.
        reversal: lambda at the progress ``until`` and at all later steps; 0 leaves the temperature at its start.
        until: progress at which lambda has its full size.

    Source: Li et al. 2023, https://arxiv.org/abs/2211.16231
    """

    def __init__(
        self,
        start: Temperature = 4.0,
        lowest: Temperature = 1.0,
        highest: Temperature = 21.0,
        reversal: NotNegative = 1.0,
        until: PartOfTraining = 0.5,
    ):
        super().__init__()
        if not lowest < highest:
            raise OptionError("highest", f"a number above lowest={lowest}", highest)
        if not lowest < start < highest:
            raise OptionError("start", f"a number between lowest={lowest} and highest={highest}, ends excluded", start)
        self.lowest, self.highest = lowest, highest
        self.strength = Cosine(0.0, reversal, until)
        # a vector of one number, since FSDP cannot shard a scalar
        self.theta = nn.Parameter(torch.tensor([math.log((start - lowest) / (highest - start))]))

    def forward(self, progress: float) -> Tensor:
        """Return the temperature, 0-dim, in float32 at least, with the reversed gradient."""
        part = precise(self.theta)[0].sigmoid()
        temperature = (1 - part) * self.lowest + part * self.highest
        constant = temperature.detach()
        return constant - self.strength.at(progress) * (temperature - constant)

    def at(self, progress: float) -> Tensor:
        """Return the temperature at this progress, with the reversed gradient."""
        return self(progress)

    def bounds(self) -> tuple[float, float]:
        return self.lowest, self.highest
