"""Learning-rate schedules, and how the rate follows the global batch."""

import pytest
import torch
from torch import nn

from kd.errors import KDError
from kd.methods.learning_rate import rate_factor, warm_up_and_decay


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("constant", [0, 0.5, 1, 1, 1, 1]),
        ("cosine", [0, 0.5, 1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_schedules(decay, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warm_up_and_decay(optimizer, 6, decay, warm_up=1 / 3)
    rates = []
    for _ in range(6):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected, abs=1e-4)


def test_unknown_schedule_is_refused():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(KDError, match="decay must be linear, cosine or constant, found 'step'"):
        warm_up_and_decay(optimizer, 6, "step", 0.1)
    with pytest.raises(KDError, match=r"warm_up must be a number in \[0, 1\), found 2"):
        warm_up_and_decay(optimizer, 6, "linear", 2)


@pytest.mark.parametrize(("scale", "factor"), [("none", 1.0), ("linear", 0.25), ("sqrt", 0.5)])
def test_the_rate_follows_a_smaller_batch(scale, factor):
    assert rate_factor(scale, 16, 64) == factor and rate_factor(scale, 64, 64) == 1
