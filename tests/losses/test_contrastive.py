"""The terms of `kd.losses.contrastive` one by one; see `test_feature_terms` for what holds of all."""

import math

import pytest
import torch

from kd.errors import KDError
from kd.losses.contrastive import CRD, CoDIR, info_nce
from tests.losses.feature_terms import CONTRASTS, build, contrast_formula, drawn_pair, value


def test_contrast_with_equal_cosines_is_log_of_the_rows():
    _, teacher = drawn_pair("crd")
    assert info_nce(torch.zeros(6, 4), teacher.detach()).item() == pytest.approx(math.log(6))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_copies_of_a_text_are_no_negatives(dtype):
    noise, teacher = (side.detach() for side in drawn_pair("crd", width=64))
    teacher[4] = teacher[1]
    student = teacher + noise
    if dtype == torch.float16:  # as two batches of a teacher may round it
        teacher[4] *= 1 + 3e-4 * torch.randn(64, generator=torch.Generator().manual_seed(0))
        assert (teacher[4].half() != teacher[1].half()).any()
    expected = contrast_formula(excluded={(1, 4), (4, 1)})(student.numpy(), teacher.numpy(), None)
    assert expected != pytest.approx(contrast_formula()(student.numpy(), teacher.numpy(), None), rel=1e-2)
    result = value(CRD(), student.to(dtype), teacher.to(dtype)).item()
    assert result == pytest.approx(expected, rel=1e-10 if dtype == torch.float64 else 1e-2)


@pytest.mark.parametrize("name", CONTRASTS)
def test_nothing_is_left_where_all_texts_are_one(name):
    student, teacher = drawn_pair(name)
    assert value(build(name), student, teacher[[0] * 6]).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", CONTRASTS)
def test_contrast_leads_to_the_teacher(name):
    student, teacher = drawn_pair(name)
    far, near = (value(build(name), side, teacher).item() for side in (student, student + 10 * teacher))
    assert near < far / 2


def test_layers_of_codir_do_not_make_up_for_each_other():
    narrow, wide = torch.zeros(6, 3), torch.zeros(6, 5)
    with pytest.raises(KDError, match=r"student \[6, 3\] and teacher \[6, 5\]"):
        value(CoDIR(), (narrow, wide), (wide, narrow))


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (CRD, {"level": "token"}, ["level must be sentence", "'token'"]),
        (CRD, {"contrast_temperature": 0}, ["contrast_temperature", "a number in [0.01, 1000]", "found 0"]),
        (CoDIR, {"contrast_temperature": "cold"}, ["contrast_temperature", "'cold'"]),
        (CRD, {"exclude_same_class": "yes"}, ["exclude_same_class", "true or false", "'yes'"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)
