"""The terms of `kd.losses.hint` one by one; see `test_feature_terms` for what holds of all."""

import pytest
import torch

from kd.contract import Answer
from kd.errors import KDError
from kd.losses.hint import PKD, VID, Cosine, Hint, cosine, pkd, unit
from tests.losses.feature_terms import drawn_pair, value, variances_of


def test_variances_learn():
    student, teacher = drawn_pair("vid")
    variances = variances_of(4).requires_grad_()
    answer = Answer(logits=torch.zeros(6, 2), hidden_states=(student,), variances=(variances,))
    VID()(answer, Answer(logits=torch.zeros(6, 2), hidden_states=(teacher,)), {}).backward()
    squares = (teacher - student).square().mean(0).detach()
    torch.testing.assert_close(variances.grad, (variances - squares).detach() / (8 * variances.detach() ** 2))


def test_unit_leaves_a_row_of_zeros_and_its_gradient_at_zero():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    lengths_one = unit(rows)
    lengths_one.sum().backward()
    assert lengths_one.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    assert rows.grad[1].tolist() == [0, 0]


def test_pkd_is_twice_cosine():
    student, teacher = drawn_pair("pkd")
    torch.testing.assert_close(pkd(student, teacher), 2 * cosine(student, teacher))


def test_tokens_of_two_widths_are_refused():
    with pytest.raises(KDError, match=r"student \[6, 4\] and teacher \[6, 1\]"):
        value(Hint("token"), torch.zeros(2, 3, 4), torch.zeros(2, 3, 1), mask=torch.ones(2, 3))


def test_other_number_of_variances_is_refused():
    answer = Answer(logits=torch.zeros(6, 2), hidden_states=(torch.zeros(6, 4),), variances=(torch.ones(1),))
    with pytest.raises(KDError, match=r"\[4\], found \[1\]"):
        VID()(answer, answer, {})


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (Hint, {"level": "word"}, ["level", "sentence or token", "'word'"]),
        (Cosine, {"weight": -1}, ["weight", "of at least 0", "-1"]),
        (PKD, {"reduction_over_width": "max"}, ["reduction_over_width", "sum or mean", "'max'"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)
