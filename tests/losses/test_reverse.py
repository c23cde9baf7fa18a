"""The terms of `kd.losses.reverse` one by one; see `test_logit_terms` for what holds of all."""

import math

import pytest
import torch

from kd.errors import KDError
from kd.losses.reverse import JensenShannon, ReverseKL, SymmetricCrossEntropy
from tests.losses.logit_terms import draw, value


@pytest.mark.parametrize("alpha_sym", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("temperature_form", ["softmax", "divide"])
def test_symmetric_cross_entropy_leads_to_the_teacher_and_not_to_a_one_hot(alpha_sym, temperature_form):
    teacher = torch.tensor([[0.599, 0.401]], dtype=torch.float64).log()
    student = torch.zeros_like(teacher, requires_grad=True)
    loss = SymmetricCrossEntropy(2.0, alpha_sym, temperature_form)
    optimizer = torch.optim.SGD([student], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        value(loss, student, teacher).backward()
        optimizer.step()
    assert student.softmax(-1)[0, 0].item() == pytest.approx(0.599, abs=1e-3)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jensen_shannon_is_bounded(beta):
    apart = torch.tensor([[40.0, -40.0]], dtype=torch.float64)
    entropy_of_beta = -(beta * math.log(beta) + (1 - beta) * math.log(1 - beta))
    assert value(JensenShannon(1.0, beta), apart, -apart).item() == pytest.approx(entropy_of_beta)
    assert entropy_of_beta <= math.log(2)
    for seed in range(20):
        assert 0 <= value(JensenShannon(1.0, beta), *draw(3, seed=seed)).item() <= entropy_of_beta


@pytest.mark.parametrize("temperature", [1, 2, 8])
def test_jensen_shannon_at_one_half_is_symmetric(temperature):
    student, teacher = draw(3)
    there, back = (
        value(JensenShannon(temperature), student, teacher),
        value(JensenShannon(temperature), teacher, student),
    )
    assert there.item() == pytest.approx(back.item())


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (ReverseKL, {"temperature": -1.0}, ["temperature", "a number in [0.01, 1000]", "-1.0"]),
        (JensenShannon, {"temperature": math.inf}, ["temperature", "inf"]),
        (SymmetricCrossEntropy, {"alpha_sym": 1.1}, ["alpha_sym", "[0, 1]", "1.1"]),
        (SymmetricCrossEntropy, {"temperature_form": "plain"}, ["temperature_form", "softmax or divide"]),
        (JensenShannon, {"beta": 0}, ["beta", "(0, 1)", "found 0"]),
        (JensenShannon, {"beta": 1.0}, ["beta", "(0, 1)", "found 1.0"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)
