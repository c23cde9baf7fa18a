"""The term of `kd.losses.annealing`; see `test_logit_terms` for what holds of all."""

import pytest
import torch

from kd.errors import KDError
from kd.losses.annealing import Annealing
from kd.losses.logits import LogitMSE
from tests.losses.logit_terms import draw, gradient, value


@pytest.mark.parametrize(("temperature", "share"), [(1, 1.0), (5, 0.5), (8, 0.125)])
def test_annealing_raises_the_target_as_the_temperature_falls(temperature, share):
    student, teacher = draw(3)
    loss = Annealing(temperature=8.0)
    loss.temperature = temperature
    assert value(loss, share * teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(
        gradient(loss, student, teacher), gradient(LogitMSE(), student, share * teacher.detach())
    )


def test_no_schedule_may_go_beyond_the_highest_temperature():
    assert Annealing().highest_temperature == Annealing().max_temperature == 8
    assert Annealing(max_temperature=20.0).highest_temperature == 20


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (Annealing, {"temperature": 9}, ["temperature", "from 1 to max_temperature=8.0", "found 9"]),
        (Annealing, {"temperature": 0.5}, ["temperature", "in [1, 1000]", "found 0.5"]),
        (Annealing, {"max_temperature": 0.5}, ["max_temperature", "in [1, 1000]", "0.5"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)
