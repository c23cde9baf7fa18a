"""The term of `kd.losses.correlation`; see `test_logit_terms` for what holds of all."""

import math

import pytest
import torch

from kd.errors import KDError
from kd.losses.correlation import DIST
from kd.losses.logits import soft_target
from tests.losses.logit_terms import draw, gradient, value


@pytest.mark.parametrize("inter_weight", [0.0, 1.0])
def test_dist_of_one_row_has_no_part_over_the_batch(inter_weight):
    student, teacher = draw(3, rows=1)
    loss = DIST(2.0, inter_weight, intra_weight=5.0)
    alone = DIST(2.0, inter_weight, intra_weight=0.0)
    assert value(loss, student, teacher).item() == value(alone, student, teacher).item()
    assert (gradient(loss, student, teacher).abs().max() > 0) == (inter_weight > 0)


def test_dist_asks_for_correlation_and_not_for_equality():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.rand(8, 4, generator=generator, dtype=torch.float64)
    teacher = teacher / teacher.sum(1, keepdim=True)
    flatter = 0.25 + 0.3 * (teacher - 0.25)
    assert value(DIST(1.0), flatter.log(), teacher.log()).item() == pytest.approx(0, abs=1e-4)
    assert soft_target(flatter.log(), teacher.log()).item() > 0.01


def test_dist_counts_rounding_as_no_spread():
    generator = torch.Generator().manual_seed(0)
    student = (0.1 + 1e-6 * torch.rand(4, 3, generator=generator)).requires_grad_()
    _, teacher = draw(3, rows=4, dtype=torch.float32)
    assert value(DIST(1.0), student, teacher).item() == pytest.approx(2, abs=0.01)
    assert gradient(DIST(1.0), student, teacher).abs().max() < 1e4  # no epsilon, or a smaller one: 1e5 and more


def test_dist_of_two_labels_learns_over_the_batch_only():
    student, teacher = draw(2)
    assert gradient(DIST(1.0, intra_weight=0.0), student, teacher).abs().max() < 1e-5
    assert value(DIST(1.0, intra_weight=0.0), student, teacher).item() > 0.1
    assert gradient(DIST(1.0, inter_weight=0.0), student, teacher).abs().max() > 1e-2
    assert "times intra_weight=2.0" in DIST(1.0, intra_weight=2.0).degenerate(2)


def test_defaults_are_those_of_the_paper():
    assert (DIST().inter_weight, DIST().intra_weight) == (1, 1)


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (DIST, {"temperature": -1.0}, ["temperature", "a number in [0.01, 1000]", "-1.0"]),
        (DIST, {"inter_weight": math.inf}, ["inter_weight", "of at least 0", "inf"]),
        (DIST, {"intra_weight": "1"}, ["intra_weight", "of at least 0", "'1'"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)
