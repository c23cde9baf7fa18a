"""Schedules against values by hand."""

import itertools
import math

import pytest
import torch

from kd.errors import KDError
from kd.methods.schedules import (
    AnnealedTemperature,
    Constant,
    Cosine,
    LearnedTemperature,
    Linear,
    Switch,
    TemperatureWarmUp,
    WarmUp,
)


@pytest.mark.parametrize(
    ("schedule", "values", "bounds"),
    [
        (Constant(0.3), {0: 0.3, 0.5: 0.3, 1: 0.3}, (0.3, 0.3)),
        (Linear(1.0, 0.2), {0: 1, 0.25: 0.8, 0.5: 0.6, 1: 0.2}, (0.2, 1)),
        (Linear(1.0, 5.0, until=0.5), {0: 1, 0.125: 2, 0.5: 5, 0.7: 5, 1: 5}, (1, 5)),
        (Cosine(4.0, 2.0), {0: 4, 0.25: 3 + math.sqrt(0.5), 0.5: 3, 1: 2}, (2, 4)),
        (Cosine(0.0, 1.0, until=0.4), {0: 0, 0.1: (1 - math.sqrt(0.5)) / 2, 0.2: 0.5, 0.4: 1, 0.9: 1}, (0, 1)),
        (WarmUp(0.5), {0: 0, 0.05: 0.25, 0.1: 0.5, 1: 0.5}, (0, 0.5)),
        (TemperatureWarmUp(4.0), {0: 1, 0.05: 2.5, 0.1: 4, 1: 4}, (1, 4)),
        (AnnealedTemperature(4), {0: 4, 0.124: 4, 0.125: 3, 0.3: 2, 0.375: 1, 0.49: 1, 0.5: 1, 1: 1}, (1, 4)),
        (Switch(), {0: 1, 0.499: 1, 0.5: 0, 1: 0}, (0, 1)),
        (Switch(0.2, 0.9, until=1.0), {0: 0.2, 0.99: 0.2, 1: 0.9}, (0.2, 0.9)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_schedules_by_hand(schedule, values, bounds):
    assert {progress: schedule.at(progress) for progress in values} == pytest.approx(values)
    assert schedule.bounds() == pytest.approx(bounds)


@pytest.mark.parametrize("until", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_the_end_is_reached_exactly_and_held(schedule, until):
    """Near 0 or 1 alone, alpha would still read labels or ask the teacher."""
    assert schedule(0.9, 0.1, until).at(until) == 0.1
    assert schedule(0.1, 0.0, until).at(1.0) == 0.0
    assert schedule(0.1, 1.0, until).at(1.0) == 1.0
    assert schedule(0.1, 1.0, until).at(0.0) == 0.1


def test_annealed_temperatures_last_equally_long():
    steps = [AnnealedTemperature(8, until=0.5).at(step / 1600) for step in range(1600)]
    assert [(value, len(list(run))) for value, run in itertools.groupby(steps)] == [
        *((temperature, 100) for temperature in range(8, 1, -1)),
        (1, 900),
    ]


def test_learned_temperature_starts_where_it_shall_and_stays_inside():
    learned = LearnedTemperature(start=2.0)
    assert learned.bounds() == (1.0, 21.0)
    assert learned.at(0.7).shape == ()
    assert learned.at(0.7).item() == pytest.approx(2.0)
    for theta, expected in ((-100.0, 1.0), (0.0, 11.0), (100.0, 21.0)):
        learned.theta.data.fill_(theta)
        assert learned.at(0.3).item() == pytest.approx(expected)


@pytest.mark.parametrize(("progress", "strength"), [(0.0, 0.0), (0.125, 0.5 - math.sqrt(0.125)), (0.25, 0.5), (0.8, 1)])
def test_learned_temperature_reverses_the_gradient(progress, strength):
    learned = LearnedTemperature(start=5.0, lowest=1.0, highest=9.0, reversal=3.0)
    (learned.at(progress) ** 2).backward()
    slope = 2 * 5 * 8 * 0.25  # d(T^2)/dT dT/dtheta at the middle of the range
    assert learned.theta.grad.item() == pytest.approx(-3 * strength * slope)


def test_descent_raises_a_temperature_that_raises_the_loss():
    learned = LearnedTemperature(start=4.0)
    optimizer = torch.optim.SGD(learned.parameters(), lr=0.1)
    temperatures = []
    for _ in range(5):
        optimizer.zero_grad()
        temperatures.append(learned.at(1.0))
        temperatures[-1].backward()
        optimizer.step()
    assert all(later > earlier for earlier, later in itertools.pairwise(temperatures))
    resumed = LearnedTemperature(start=8.0)
    resumed.load_state_dict(learned.state_dict())
    assert resumed.at(0.5) == learned.at(0.5) != 8


def test_learned_temperature_in_half_precision_is_float32():
    learned = LearnedTemperature(start=4.0).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        temperature = learned.at(1.0)
    temperature.backward()
    assert temperature.dtype == torch.float32
    assert learned.theta.grad < 0


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (Constant, {"value": "warm"}, ["value", "'warm'"]),
        (Constant, {"value": math.nan}, ["value", "nan"]),
        (Linear, {"start": 1.0, "end": 0.5, "until": 0}, ["until", "(0, 1]", "found 0"]),
        (Cosine, {"start": None, "end": 0.5}, ["start", "None"]),
        (WarmUp, {"value": 0.5, "until": 1.5}, ["until", "1.5"]),
        (WarmUp, {"value": 1.5}, ["value", "[0, 1]", "1.5"]),
        (TemperatureWarmUp, {"value": 0}, ["value", "a number in [0.01, 1000]", "found 0"]),
        (AnnealedTemperature, {"max_temperature": 0}, ["max_temperature", "whole number in [1, 1000]", "found 0"]),
        (AnnealedTemperature, {"max_temperature": 7.5}, ["max_temperature", "7.5"]),
        (Switch, {"first": True}, ["first", "True"]),
        (LearnedTemperature, {"start": 1.0}, ["start", "between lowest=1.0 and highest=21.0", "found 1.0"]),
        (LearnedTemperature, {"start": 21}, ["start", "ends excluded", "found 21"]),
        (LearnedTemperature, {"lowest": 0}, ["lowest", "a number in [0.01, 1000]"]),
        (LearnedTemperature, {"lowest": 5.0, "highest": 5.0}, ["highest", "above lowest=5.0"]),
        (LearnedTemperature, {"reversal": -1.0}, ["reversal", "of at least 0", "-1.0"]),
        (LearnedTemperature, {"until": 2}, ["until", "(0, 1]"]),
    ],
)
def test_wrong_options_are_refused(make, options, words):
    with pytest.raises(KDError) as error:
        make(**options)
    for word in words:
        assert word in str(error.value)
