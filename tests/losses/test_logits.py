"""The terms of `kd.losses.logits` one by one; see `test_logit_terms` for what holds of all."""

import math

import pytest
import torch

from kd.errors import KDError
from kd.losses.logits import LogitMSE, ProbabilityMSE, SoftCrossEntropy, SoftTarget, logit_mse, soft_target
from tests.losses.logit_terms import draw, gradient


def test_soft_target_gradient():
    student, teacher = draw(5)
    temperature = 3.0
    expected = temperature * ((student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)) / 7
    torch.testing.assert_close(gradient(SoftTarget(temperature), student, teacher), expected)


@pytest.mark.parametrize("num_labels", [2, 5])
def test_soft_target_at_high_temperature_is_half_the_centred_logit_mse(num_labels):
    student, teacher = draw(num_labels)
    limit = logit_mse(student, teacher, centred=True).item() / 2
    errors = [abs(soft_target(student, teacher, temperature).item() / limit - 1) for temperature in (100, 1000)]
    assert errors[0] < 1e-2
    assert errors[1] < 1e-3


@pytest.mark.parametrize(("normalisation", "share"), [("batch", 1), ("labels", 1 / 5)])
def test_soft_cross_entropy_has_the_gradient_of_the_soft_target(normalisation, share):
    student, teacher = draw(5)
    torch.testing.assert_close(
        gradient(SoftCrossEntropy(2.0, normalisation), student, teacher),
        share * gradient(SoftTarget(2.0), student, teacher),
    )


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (SoftTarget, {"temperature": 0}, ["temperature", "a number in [0.01, 1000]", "found 0"]),
        (SoftCrossEntropy, {"temperature": math.nan}, ["temperature", "nan"]),
        (ProbabilityMSE, {"temperature": "warm"}, ["temperature", "'warm'"]),
        (LogitMSE, {"weight": -0.5}, ["weight", "of at least 0", "-0.5"]),
        (SoftTarget, {"weight": None}, ["weight", "None"]),
        (SoftCrossEntropy, {"normalisation": "mean"}, ["normalisation", "batch or labels", "'mean'"]),
        (LogitMSE, {"reduction_over_labels": "none"}, ["reduction_over_labels", "mean or sum", "'none'"]),
        (LogitMSE, {"centred": "yes"}, ["centred", "true or false", "'yes'"]),
        (ProbabilityMSE, {"reduction_over_labels": ["sum"]}, ["mean or sum", "['sum']"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)
