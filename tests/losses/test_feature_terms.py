"""What must hold of every term on hidden states and relations, against numpy in float64."""

import math

import pytest
import torch

from kd.contract import FeatureLoss
from kd.errors import KDError
from kd.options.declared import options_of
from tests.losses.feature_terms import (
    CONTRASTS,
    LABELS,
    ROW_BY_ROW,
    TERMS,
    ZERO_AT_EQUALITY,
    build,
    draw,
    drawn_pair,
    gradient,
    value,
    variances_of,
)

all_terms = pytest.mark.parametrize("name", TERMS)
token_terms = pytest.mark.parametrize("name", ROW_BY_ROW)


@all_terms
def test_formula(name):
    student, teacher = drawn_pair(name)
    expected = TERMS[name][2](student.detach().numpy(), teacher.detach().numpy(), variances_of(4).numpy())
    result = value(build(name), student, teacher)
    assert result.shape == ()
    assert result.item() == pytest.approx(expected, rel=1e-10)
    assert value(build(name), student.float(), teacher.float()).item() == pytest.approx(expected, rel=1e-4)
    assert value(build(name), student.float(), teacher).item() == pytest.approx(expected, rel=1e-4)
    assert not list(build(name).parameters())


@all_terms
def test_what_a_term_declares(name):
    loss = build(name)
    assert isinstance(loss, FeatureLoss)
    assert loss.needs == {"hidden_states"}
    assert loss.needs_variances == (name == "vid")
    assert loss.same_width == (name in ROW_BY_ROW + CONTRASTS)
    assert options_of(type(loss))["level"].expected == ("sentence or token" if name in ROW_BY_ROW else "sentence")
    assert (loss.level, loss.layers) == ("sentence", None)


@all_terms
def test_a_mean_over_rows_says_so(name):
    """The terms of a batch's parts add up to that of the batch, and only then."""
    loss, (student, teacher) = build(name), drawn_pair(name)
    whole = value(loss, student, teacher).item()
    parts = [value(loss, student[rows], teacher[rows], LABELS[rows]).item() for rows in (slice(0, 3), slice(3, 6))]
    if name == "cka":  # of fewer than four rows it is 0
        assert parts == [0, 0]
    assert (sum(parts) / 2 == pytest.approx(whole, rel=1e-9)) == loss.is_mean_over_rows == (name in ROW_BY_ROW)


@token_terms
def test_a_mean_over_tokens_is_not_one_over_rows(name):
    loss, student, teacher = build(name, level="token"), draw(2, 3, 4), draw(2, 3, 4, seed=1)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    whole = value(loss, student, teacher, mask=mask).item()
    parts = [value(loss, student[[b]], teacher[[b]], mask=mask[[b]]).item() for b in (0, 1)]
    assert sum(parts) / 2 != pytest.approx(whole, rel=1e-3)
    assert not loss.is_mean_over_rows


@all_terms
def test_value_and_gradient_agree(name):
    student, teacher = drawn_pair(name)
    assert torch.autograd.gradcheck(lambda states: value(build(name), states, teacher.detach()), student)


@all_terms
def test_several_pairs_count_by_their_mean(name):
    students, teachers = zip(*(drawn_pair(name, width=width) for width in (4, 5)), strict=True)
    together = value(build(name), students, teachers).item()
    if name == "codir":
        side_by_side = [torch.cat(side, dim=1).detach().numpy() for side in (students, teachers)]
        assert together == pytest.approx(TERMS[name][2](*side_by_side, None), rel=1e-10)
    else:
        apart = [value(build(name), *pair).item() for pair in zip(students, teachers, strict=True)]
        assert together == pytest.approx(sum(apart) / 2, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in TERMS if name != "rkd_few"])
def test_row_order_changes_nothing(name):
    student, teacher = drawn_pair(name)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    expected = value(build(name), student, teacher).item()
    assert value(build(name), student[order], teacher[order], LABELS[order]).item() == pytest.approx(expected)
    assert value(build(name), student[order], teacher).item() != pytest.approx(expected, rel=1e-3)


@all_terms
def test_gradient_reaches_the_student_only_unless_it_teaches_back(name):
    student, teacher = drawn_pair(name)
    loss = build(name)
    value(loss, student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    loss.teaches_back = True
    value(loss, student, teacher).backward()
    assert teacher.grad.abs().sum() > 0
    assert torch.autograd.gradcheck(lambda states: value(loss, student.detach(), states), teacher)


@pytest.mark.parametrize("name", ZERO_AT_EQUALITY)
def test_zero_and_flat_at_equality_only(name):
    student, teacher = drawn_pair(name, width=5)
    equal = teacher.detach().clone().requires_grad_()
    assert value(build(name), equal, teacher).item() == pytest.approx(0, abs=1e-12)
    assert gradient(build(name), equal, teacher).abs().max() < 1e-7
    assert value(build(name), student, teacher).item() > 0.01


@all_terms
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_stays_finite_and_right(name, dtype, autocast):
    student, teacher = (side.detach().round() for side in drawn_pair(name))
    student[0], student[1], teacher[2] = 30_000, 0, 40_000  # squares beyond half precision, and a row of zeros
    half = student.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = value(build(name), half, teacher.to(dtype))
    assert result.dtype == (torch.float64 if name == "vid" else torch.float32)  # as its variances here
    result.backward()
    assert half.grad.isfinite().all()
    # nothing but float32 rounding may be lost
    expected = value(build(name), student.to(dtype).double(), teacher.to(dtype).double())
    assert result.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)


@token_terms
@pytest.mark.parametrize("padding", [math.nan, math.inf, 1e30])
def test_padding_never_counts(name, padding):
    """The term over tokens is that over the rows of real tokens, whatever and however much stands beside them."""
    student, teacher = (draw(3, 5, 4, seed=seed).detach() for seed in (0, 1))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0]])
    expected = value(build(name), student[mask.bool()], teacher[mask.bool()]).item()
    student[mask == 0], teacher[mask == 0] = padding, -padding
    student.requires_grad_()
    result = value(build(name, level="token"), student, teacher, mask=mask)
    assert result.item() == pytest.approx(expected, rel=1e-12)
    result.backward()
    assert (student.grad[mask == 0] == 0).all()
    assert (student.grad[mask == 1] != 0).all()
    wider = [torch.cat([side.detach(), torch.full((3, 2, 4), padding)], dim=1) for side in (student, teacher)]
    longer = torch.cat([mask, torch.zeros(3, 2, dtype=torch.int64)], dim=1)
    assert value(build(name, level="token"), *wider, mask=longer).item() == pytest.approx(expected, rel=1e-12)
    assert value(build(name, level="token"), *wider, mask=longer.bool()).item() == pytest.approx(expected, rel=1e-12)


@token_terms
def test_a_batch_without_tokens_counts_nothing(name):
    student = torch.full((2, 3, 4), math.nan, requires_grad=True)
    result = value(build(name, level="token"), student, student, mask=torch.zeros(2, 3))
    result.backward()
    assert result.item() == 0
    assert (student.grad == 0).all()


@all_terms
@pytest.mark.parametrize(
    "collapse",
    [
        lambda rows: rows[[0, 0, 0, 1, 2, 3]],
        lambda rows: rows[[0, 0, 0, 0, 0, 0]],
        lambda rows: rows * torch.tensor([[0.0], [1], [1], [1], [0], [1]]),
        lambda rows: 0 * rows,
        lambda rows: 100 + 1e-30 * rows,
    ],
    ids=["copies", "all one", "zero rows", "all zero", "a constant"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_degenerate_rows_are_finite(name, collapse, dtype):
    student, teacher = (collapse(side.detach()).to(dtype) for side in drawn_pair(name))
    student.requires_grad_()
    for other in (teacher, drawn_pair(name, dtype=dtype)[1]):
        result = value(build(name), student, other)
        assert result.isfinite()
        (slope,) = torch.autograd.grad(result, student)
        assert slope.abs().max() < 1e3


@all_terms
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_are_finite(name, rows):
    student, teacher = drawn_pair(name, rows=rows)
    result = value(build(name), student, teacher)
    result.backward()
    assert result.isfinite()
    assert student.grad.isfinite().all()
    if name == "cka":
        assert result.item() == 0 and (student.grad == 0).all()


@all_terms
def test_shapes_that_do_not_fit_are_refused(name):
    with pytest.raises(KDError, match=r"student \[6, 4\] and teacher \[5, 4\]"):
        value(build(name), torch.zeros(6, 4), torch.zeros(5, 4))
    with pytest.raises(KDError, match=r"\[rows, width\].* student \[6, 2, 4\] and teacher \[6, 2, 4\]"):
        value(build(name), torch.zeros(6, 2, 4), torch.zeros(6, 2, 4))
    if build(name).same_width:
        with pytest.raises(KDError, match=r"equal rows and widths.* student \[6, 4\] and teacher \[6, 1\].*mapper"):
            value(build(name), torch.zeros(6, 4), torch.zeros(6, 1))


@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 3, 4), (2, 5, 4)), ((2, 5, 4), (2, 5, 4)), ((2, 4), (2, 4)), ((2, 3, 4), (2, 3))]
)
@token_terms
def test_tokens_that_do_not_fit_are_refused(name, student, teacher):
    with pytest.raises(KDError) as error:
        value(build(name, level="token"), torch.zeros(student), torch.zeros(teacher), mask=torch.ones(2, 3))
    assert f"student {list(student)} and teacher {list(teacher)}" in str(error.value)
    assert "[2, 3]" in str(error.value)
