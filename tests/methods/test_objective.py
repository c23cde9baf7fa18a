"""The objective by itself, with terms of known values; the tests of the methods train with it."""

import math

import pytest
import torch

from kd.contract import Answer, Loss
from kd.errors import KDError
from kd.losses.annealing import Annealing
from kd.losses.logits import LogitMSE, SoftTarget
from kd.methods.objective import Objective
from kd.methods.schedules import AnnealedTemperature, Constant, Linear


class Fixed(Loss):
    """A term of one value."""

    def __init__(self, value: float, weight: float = 1.0):
        super().__init__(weight)
        self.value = value

    def term(self, student, teacher, batch):
        return student.logits.sum() * 0 + self.value


def evaluated(objective: Objective, label: float = 5.0, progress: float = 0.0, **options):
    sides = Answer(logits=torch.zeros(3, 2)), Answer(logits=torch.zeros(3, 2))
    batch = {"labels": torch.zeros(3, dtype=torch.long)}
    answers = {name: [sides] for name in objective.transfer}
    return objective(torch.tensor(label), answers, batch, progress, list, **options)


def total(*arguments, **options) -> float:
    return evaluated(*arguments, **options)[0]["total"].item()


def test_alpha_and_the_label_share_may_be_given():
    objective = Objective({"a": Fixed(2.0, 0.5), "b": Fixed(3.0, 2.0)}, Linear(0.3, 0.1))
    assert total(objective) == pytest.approx(0.7 * 5 + 0.3 * (0.5 * 2 + 2 * 3))
    assert total(objective, progress=1.0) == pytest.approx(0.9 * 5 + 0.1 * 7)
    assert total(objective, alpha=0.5) == pytest.approx(0.5 * 5 + 0.5 * 7)
    assert total(objective, label_share=1.0) == pytest.approx(5 + 0.3 * 7)
    assert evaluated(objective)[1]["alpha"] == 0.3


def test_the_mean_over_several_teachers_counts():
    objective = Objective({"logit_mse": LogitMSE()}, Constant(1.0))
    student, near, far = (Answer(logits=torch.full((3, 2), value)) for value in (0.0, 1.0, 3.0))
    batch = {"labels": torch.zeros(3, dtype=torch.long)}
    parts, _ = objective(torch.tensor(0.0), {"logit_mse": [(student, near), (student, far)]}, batch, 0.0, list)
    assert parts["total"].item() == pytest.approx((1 + 9) / 2)


def test_calibrated_terms_start_at_their_weight_of_label_losses():
    objective = Objective({"a": Fixed(2.0, 0.5), "b": Fixed(300.0)}, Constant(0.5), calibrate=True)
    parts, curves = evaluated(objective, label=4.0)
    assert (curves["scale/a"], curves["scale/b"]) == (2.0, pytest.approx(4 / 300))
    assert parts["total"].item() == pytest.approx(0.5 * 4 + 0.5 * (0.5 * 4 + 4))
    assert total(objective, label=1.0) == pytest.approx(0.5 * 1 + 0.5 * (0.5 * 4 + 4))  # the scales stay


def test_a_temperature_of_the_objective_is_set_in_the_tempered_losses():
    losses = {"soft_target": SoftTarget(9.0), "logit_mse": LogitMSE()}
    _, curves = evaluated(Objective(losses, Constant(0.5), Linear(4.0, 2.0)), progress=0.5)
    assert curves["temperature"] == losses["soft_target"].temperature == 3.0
    assert not hasattr(losses["logit_mse"], "temperature")
    evaluated(Objective(losses, Constant(0.5), Constant(7.0)))
    assert losses["soft_target"].temperature == 3.0  # a constant one is that of the losses


@pytest.mark.parametrize(
    ("losses", "alpha", "temperature", "words"),
    [
        ({"label": Fixed(1.0)}, Constant(0.5), None, ["'label'", "rename"]),
        ({"a": Fixed(1.0)}, Linear(0.5, 1.5), None, ["alpha", "[0, 1]", "0.5 to 1.5"]),
        ({"a": Fixed(1.0, weight=0.0)}, Constant(1.0), None, ["alpha=1", "weight"]),
        ({"a": Fixed(1.0)}, Constant(0.5), Linear(4.0, 1.0), ["balance/temperature", "(a)", "soft_target"]),
        ({"a": SoftTarget()}, Constant(0.5), Linear(1.0, -1.0), ["balance/temperature", "above 0", "-1 to 1"]),
        ({"a": Annealing(3.0)}, Constant(0.5), Constant(3.0), ["'a'", "3", "balance/temperature=annealing"]),
        ({"a": Annealing()}, Constant(0.5), AnnealedTemperature(9), ["'a'", "8", "loss.a.max_temperature"]),
    ],
)
def test_settings_that_contradict_each_other_are_refused(losses, alpha, temperature, words):
    with pytest.raises(KDError) as error:
        Objective(losses, alpha, temperature)
    for word in words:
        assert word in str(error.value)


def test_a_share_of_zero_leaves_a_nan_out():
    assert total(Objective({"a": Fixed(math.nan)}, Constant(0.0)), label=1.0) == 1.0
    assert total(Objective({"a": Fixed(1.0)}, Constant(1.0)), label=math.nan) == 1.0
