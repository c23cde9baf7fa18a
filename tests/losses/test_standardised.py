"""The term of `kd.losses.standardised`; see `test_logit_terms` for what holds of all."""

import math

import pytest
import torch

from kd.errors import KDError
from kd.losses.logits import SoftTarget, soft_target
from kd.losses.standardised import Standardised
from tests.losses.logit_terms import draw, gradient, value


@pytest.mark.parametrize("over", ["labels", "batch"])
def test_standardised_ignores_the_range_of_the_logits(over):
    _, teacher = draw(4)
    assert value(Standardised(2.0, over), 30 * teacher + 5, teacher).item() == pytest.approx(0, abs=1e-10)
    assert value(SoftTarget(2.0), 30 * teacher + 5, teacher).item() > 1


def test_standardised_over_the_batch_leaves_the_mean_margin_alone():
    _, teacher = draw(2)
    shifted = teacher + torch.tensor([0.0, 3.0])
    assert value(Standardised(2.0, "batch"), shifted, teacher).item() == pytest.approx(0, abs=1e-10)


def test_standardised_of_two_labels_teaches_over_the_batch_only():
    student, teacher = draw(2)
    assert gradient(Standardised(2.0), student, teacher).abs().max() < 1e-5
    assert value(Standardised(2.0), student, teacher).item() > 0.1
    # two standardised logits are always -0.7071 and 0.7071: a hint of the right answer is as good as the answer
    assert value(Standardised(2.0), 1e-3 * teacher, teacher).item() < 1e-6
    half = math.sqrt(0.5)
    pair = torch.tensor([[-half, half]], dtype=torch.float64)
    opposite = soft_target(-pair, pair, 2.0).item()
    assert value(Standardised(2.0), -teacher, teacher).item() == pytest.approx(opposite, rel=1e-5)
    assert "over=batch" in Standardised().degenerate(2)

    assert gradient(Standardised(2.0, "batch"), student, teacher).abs().max() > 1e-2
    assert Standardised(over="batch").degenerate(2) is None


def test_defaults_are_those_of_the_paper():
    assert (Standardised().temperature, Standardised().over) == (2, "labels")


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (Standardised, {"temperature": math.nan}, ["temperature", "nan"]),
        (Standardised, {"over": "rows"}, ["over", "labels or batch", "'rows'"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)
