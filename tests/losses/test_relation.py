"""The terms of `kd.losses.relation` one by one; see `test_feature_terms` for what holds of all."""

import math

import numpy as np
import pytest
import torch

from kd.errors import KDError
from kd.losses.relation import CKA, RKD, SimilarityPreserving, cka
from tests.losses.feature_terms import RELATIONS, build, draw, drawn_pair, gradient, value


@pytest.mark.parametrize("name", RELATIONS)
def test_relations_do_not_see_rotation_and_scale(name):
    _, teacher = drawn_pair(name)
    rotation = torch.linalg.qr(draw(7, 7, seed=2).detach())[0]
    turned = 0.01 * teacher.detach() @ rotation
    assert value(build(name), turned, teacher).item() == pytest.approx(0, abs=1e-10)
    if name != "similarity":
        assert value(build(name), turned + 3, teacher).item() == pytest.approx(0, abs=1e-10)


def test_cka_of_unrelated_states_is_not_biased():
    """Where B < d the biased form calls unrelated states alike; this one is near 0 on average, so the loss near 1."""
    losses = [cka(draw(16, 64, seed=seed), draw(16, 64, seed=100 + seed)).item() for seed in range(40)]
    assert np.mean(losses) == pytest.approx(1, abs=0.05)
    assert min(losses) < 1 < max(losses)


def test_cka_sees_small_differences_beside_a_large_common_part_in_float32():
    student, teacher = drawn_pair("cka")
    expected = cka(student, teacher).item()
    assert cka((student + 1000).float(), (teacher - 1000).float()).item() == pytest.approx(expected, rel=1e-3)


def test_cka_takes_no_rounding_error_for_a_relation():
    """Rows that differ in the last bit say the same of every text, however large they are."""
    collapsed = torch.full((7, 4), 1000.1)
    collapsed[::2, 1] = collapsed[0, 0].nextafter(torch.tensor(math.inf))
    collapsed.requires_grad_()
    loss = cka(collapsed, draw(7, 5, dtype=torch.float32).detach())
    loss.backward()
    assert loss.item() == 1
    assert (collapsed.grad == 0).all()


def test_rkd_angles_see_the_first_rows_only():
    student, teacher = drawn_pair("rkd")
    loss = RKD(distance_weight=0, angle_rows=3)
    slope = gradient(loss, student, teacher)
    assert (slope[:3] != 0).all() and (slope[3:] == 0).all()
    assert value(loss, student, teacher).item() == value(loss, student[:3], teacher[:3]).item()


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (SimilarityPreserving, {"level": "token"}, ["level must be sentence", "'token'"]),
        (CKA, {"level": "token"}, ["level must be sentence", "'token'"]),
        (RKD, {"distance_weight": -1}, ["distance_weight", "of at least 0", "-1"]),
        (RKD, {"angle_weight": math.nan}, ["angle_weight", "nan"]),
        (RKD, {"angle_rows": 2}, ["angle_rows", "a whole number in [3, 65536]", "found 2"]),
        (RKD, {"angle_rows": 8.0}, ["angle_rows", "a whole number", "8.0"]),
        (RKD, {"angle_rows": None}, ["angle_rows", "None"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)
