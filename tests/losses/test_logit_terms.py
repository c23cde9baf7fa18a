"""What must hold of every term on logits: its formula in float64, its gradient, its precision, its ends."""

import pytest
import torch

from kd.errors import KDError
from tests.losses.logit_terms import (
    LABELS,
    READ_THE_BATCH,
    ROWS,
    TERMS,
    WEIGHTS,
    ZERO_AT_EQUALITY,
    build,
    draw,
    gradient,
    value,
)

all_terms = pytest.mark.parametrize("name", TERMS)
TEACH_TWO_LABELS = [name for name in TERMS if not name.startswith(("dkd", "nkd", "dist", "standardised", "annealing"))]


@all_terms
@pytest.mark.parametrize("num_labels", [2, 3, 5])
@pytest.mark.parametrize("temperature", [1, 2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_formula(name, num_labels, temperature, weighted):
    student, teacher = draw(num_labels)
    loss, (_, _, formula, error) = build(name, temperature), TERMS[name]
    weights = WEIGHTS if weighted else torch.ones_like(WEIGHTS)
    arrays = [tensor.detach().numpy() for tensor in (student, teacher, LABELS, weights)]
    expected = formula(*arrays, temperature)
    found = value(loss, student, teacher, row_weights=WEIGHTS if weighted else None)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, rel=error)
    single = value(loss, student.float(), teacher.float(), row_weights=weights.float())
    assert single.item() == pytest.approx(expected, rel=1e-4)
    assert single.dtype == torch.float32
    assert (
        loss.needs == {"logits"} and loss.tempered == (not name.startswith("logit_mse")) and not list(loss.parameters())
    )


@all_terms
@pytest.mark.parametrize("num_labels", [2, 3])
def test_row_weights_are_followed_where_the_term_says_so(name, num_labels):
    loss, (student, teacher) = build(name), draw(num_labels)
    plain, weighted = (value(loss, student, teacher, row_weights=weights).item() for weights in (None, WEIGHTS))
    assert (weighted != pytest.approx(plain, rel=1e-3)) == loss.weighs_rows


@all_terms
def test_value_and_gradient_agree(name):
    student, teacher = draw(3)
    assert torch.autograd.gradcheck(lambda logits: value(build(name), logits, teacher.detach()), student)


@all_terms
def test_row_order_changes_nothing(name):
    student, teacher = draw(3)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    reordered = value(build(name), student[order], teacher[order], LABELS[order]).item()
    assert reordered == pytest.approx(value(build(name), student, teacher).item(), rel=1e-12)
    shuffled_against_each_other = value(build(name), student[order], teacher, LABELS).item()
    assert shuffled_against_each_other != pytest.approx(reordered, rel=1e-3)


@all_terms
def test_rows_are_terms_of_their_own_unless_the_batch_is_read(name):
    """A row's gradient depends on the others only in the terms that are said to read the batch."""
    student, teacher = draw(3)
    other = student.detach().clone()
    other[1:] += 1 + torch.arange(3)
    there, here = gradient(build(name), other.requires_grad_(), teacher)[0], gradient(build(name), student, teacher)[0]
    assert here.abs().max() > 1e-4
    assert torch.allclose(there, here, rtol=1e-9, atol=0) == (name not in READ_THE_BATCH)


@all_terms
def test_a_mean_over_rows_says_so(name):
    """Where all rows are labelled, the terms of a batch's parts add up to that of the batch."""
    loss, (student, teacher) = build(name), draw(3)
    labels = LABELS.clamp(min=0)
    whole = value(loss, student, teacher, labels).item()
    parts = [
        rows * value(loss, *pair, gold).item()
        for rows, *pair, gold in zip((3, 4), *(side.split((3, 4)) for side in (student, teacher, labels)), strict=True)
    ]
    assert (
        (sum(parts) / ROWS == pytest.approx(whole, rel=1e-9)) == loss.is_mean_over_rows == (name not in READ_THE_BATCH)
    )


@pytest.mark.parametrize("name", ZERO_AT_EQUALITY)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_least_at_the_teacher_and_only_there(name, temperature):
    loss, (student, teacher) = build(name, temperature=1.0 if name.startswith("annealing") else temperature), draw(3)
    equal = teacher.detach().clone().requires_grad_()
    assert value(loss, equal, teacher).item() == pytest.approx(0, abs=1e-6 if name.startswith("dist") else 1e-12)
    assert gradient(loss, equal, teacher).abs().max() < 1e-6
    assert value(loss, student, teacher).item() > 0.01


@pytest.mark.parametrize("name", TEACH_TWO_LABELS)
@pytest.mark.parametrize("num_labels", [2, 3])
def test_the_gradient_is_zero_at_the_teacher_and_nowhere_else(name, num_labels):
    """The terms that are not 0 at equality are least there too, and all of them teach two labels."""
    student, teacher = draw(num_labels)
    equal = teacher.detach().clone().requires_grad_()
    assert gradient(build(name), equal, teacher).abs().max() < 1e-12
    assert gradient(build(name), student, teacher).abs().max() > 1e-3
    assert build(name).degenerate(num_labels) is None


@all_terms
@pytest.mark.parametrize("teaches_back", [False, True])
def test_gradient_reaches_the_student_and_the_teacher_only_where_it_is_taught(name, teaches_back):
    student, teacher = draw(3)
    loss = build(name)
    loss.teaches_back = teaches_back
    value(loss, student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert (teacher.grad is not None) == teaches_back
    if teaches_back:
        assert teacher.grad.isfinite().all() and teacher.grad.abs().sum() > 0


@pytest.mark.parametrize("name", [name for name in TERMS if not name.startswith("logit_mse")])
def test_gradient_reaches_a_learned_temperature(name):
    student, teacher = draw(4)
    loss = build(name)
    with_number = value(loss, student, teacher)
    loss.temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    found = value(loss, student, teacher)
    assert found.item() == pytest.approx(with_number.item(), rel=1e-12)
    (slope,) = torch.autograd.grad(found, loss.temperature)
    step = 1e-5
    above, below = (value(build(name, 2.0 + sign * step), student, teacher).item() for sign in (1, -1))
    assert slope.item() == pytest.approx((above - below) / (2 * step), rel=1e-5)
    assert abs(slope.item()) > 1e-3


@all_terms
@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_stays_finite_and_right(name, num_labels, dtype, autocast):
    student = torch.tensor([[60, -60, 0], [-60, 60, 0], [1, 2, 4]], dtype=dtype)[:, :num_labels].requires_grad_()
    teacher = torch.tensor([[-60, 60, 0], [-60, 60, 0], [2, 3, 2]], dtype=dtype)[:, :num_labels].requires_grad_()
    loss, labels = build(name, temperature=1.5), torch.tensor([0, 1, 0])
    loss.teaches_back = True
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = value(loss, student, teacher, labels)
    result.backward()
    assert result.dtype == torch.float32
    assert student.grad.isfinite().all() and teacher.grad.isfinite().all()
    # these logits are whole numbers, exact in every type: nothing but float32 rounding may be lost
    expected = value(loss, student.double(), teacher.double(), labels)
    assert result.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)


@all_terms
@pytest.mark.parametrize("constant", ["student", "teacher", "both"])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("num_labels", [1, 2, 3])
def test_constant_logits_and_single_rows_stay_finite(name, constant, rows, num_labels):
    student, teacher = (logits.detach() for logits in draw(num_labels, rows, dtype=torch.float32))
    student, teacher = (
        (logits * 0 + 0.1 if constant in (side, "both") else logits).requires_grad_()
        for side, logits in (("student", student), ("teacher", teacher))
    )
    loss = build(name)
    loss.teaches_back = True
    result = value(loss, student, teacher, torch.zeros(rows, dtype=torch.long))
    result.backward()
    assert result.isfinite()
    assert student.grad.isfinite().all() and teacher.grad.isfinite().all()


@all_terms
def test_one_label_teaches_nothing_and_says_so(name):
    student, teacher = draw(1)
    labels = LABELS.clamp(max=0)
    nothing = gradient(build(name), student, teacher, labels=labels).abs().max() < 1e-12
    assert nothing == (build(name).degenerate(1) is not None)


@all_terms
def test_a_degeneracy_is_said_of_one_and_two_labels_only(name):
    loss = build(name)
    said_of_two = name.startswith(("dkd", "nkd", "dist")) or name == "standardised"
    assert (loss.degenerate(2) is not None) == said_of_two
    assert loss.degenerate(3) is None


@all_terms
@pytest.mark.parametrize("num_labels", [1, 3])
def test_other_number_of_labels_is_refused(name, num_labels):
    with pytest.raises(KDError, match=rf"student \[7, 2\] and teacher \[7, {num_labels}\]"):
        value(build(name), torch.zeros(7, 2), torch.zeros(7, num_labels))
