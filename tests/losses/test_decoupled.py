"""The terms of `kd.losses.decoupled` one by one; see `test_logit_terms` for what holds of all."""

import math

import pytest
import torch

from kd.errors import KDError
from kd.losses.decoupled import DKD, NKD, dkd
from kd.losses.logits import SoftTarget, soft_target
from tests.losses.logit_terms import LABELS, READ_LABELS, ROWS, WEIGHTS, build, draw, gradient, value


@pytest.mark.parametrize("name", READ_LABELS)
def test_rows_without_a_label_are_left_out(name):
    student, teacher = draw(3)
    garbage = student.detach().clone()
    garbage[LABELS == -100] = 1e30
    garbage.requires_grad_()
    expected = value(build(name), student, teacher)
    assert value(build(name), garbage, teacher).item() == expected.item()
    labelled = LABELS != -100
    assert value(build(name), student[labelled], teacher[labelled], LABELS[labelled]).item() == pytest.approx(
        expected.item(), rel=1e-12
    )
    found = gradient(build(name), garbage, teacher)
    assert (found[~labelled] == 0).all() and (found[labelled] != 0).any(1).all()


@pytest.mark.parametrize("name", READ_LABELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_label_gives_zero_and_zero_gradient(name, dtype):
    student, teacher = draw(3)
    student = student.detach().to(dtype).requires_grad_()
    result = value(build(name), student, teacher.to(dtype), torch.full((ROWS,), -100), WEIGHTS.to(dtype))
    assert result.item() == 0 and result.requires_grad
    result.backward()
    assert (student.grad == 0).all()


@pytest.mark.parametrize("name", READ_LABELS)
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_does_not_exist_is_not_taken_for_another(name, label):
    student, teacher = draw(3)
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        value(build(name), student, teacher, torch.full((ROWS,), label))


def test_dkd_takes_the_soft_target_apart():
    """KL = TCKD + (1 - p_t(y)) NCKD, the decomposition that the paper starts from."""
    student, teacher = draw(5)
    temperature = 4.0
    for b, y in enumerate([0, 1, 2, 3, 4, 0, 1]):
        row = student[b : b + 1], teacher[b : b + 1], torch.tensor([y])
        target, non_target = (dkd(*row, temperature, *weights).item() for weights in ((1, 0), (0, 1)))
        rest = 1 - (teacher[b] / temperature).softmax(-1)[y].item()
        assert target + rest * non_target == pytest.approx(soft_target(*row[:2], temperature).item(), rel=1e-10)


def test_dkd_stays_right_where_a_softmax_is_one_or_zero():
    label = torch.tensor([0])
    # the gold class has probability 0 on both sides; among the others, 10 logits against -10
    student, teacher = torch.tensor([[0.0, 4990.0, 5000.0]]), torch.tensor([[0.0, 5000.0, 4990.0]])
    assert dkd(student, teacher, label, 1.0, 1.0, 0.0).item() == pytest.approx(0, abs=1e-6)
    assert dkd(student, teacher, label, 1.0, 0.0, 1.0).item() == pytest.approx(10 * math.tanh(5), rel=1e-5)
    # it has probability 1 on both sides, and the others, at e^-5000, still differ
    student, teacher = torch.tensor([[5000.0, 0.0, 10.0]]), torch.tensor([[5000.0, 10.0, 0.0]])
    assert dkd(student, teacher, label, 1.0, 1.0, 0.0).item() == pytest.approx(0, abs=1e-6)
    assert dkd(student, teacher, label, 1.0, 0.0, 1.0).item() == pytest.approx(10 * math.tanh(5), rel=1e-5)
    # the two are sure of different classes
    student, teacher = torch.tensor([[0.0, 200.0, 0.0]]), torch.tensor([[200.0, 0.0, 0.0]])
    assert dkd(student, teacher, label, 1.0, 1.0, 0.0).item() == pytest.approx(200, rel=1e-6)


def test_nkd_leads_to_the_label_and_shares_the_rest_as_the_teacher_does():
    teacher = torch.tensor([[1.0, 2.0, 0.0, -1.0]], dtype=torch.float64)
    student = torch.zeros_like(teacher, requires_grad=True)
    loss, label = NKD(1.0), torch.tensor([0])
    optimizer = torch.optim.SGD([student], lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        value(loss, student, teacher, label).backward()
        optimizer.step()
    assert student.softmax(-1)[0, 0] > 0.98 > 0.3 > teacher.softmax(-1)[0, 0]
    torch.testing.assert_close(student[0, 1:].softmax(-1), teacher[0, 1:].softmax(-1), atol=1e-3, rtol=0)


def test_nkd_tempers_the_other_classes_only():
    student, teacher = draw(4)
    cold, warm = (value(NKD(temperature, gamma=0), student, teacher).item() for temperature in (1.0, 5.0))
    assert cold == warm


@pytest.mark.parametrize("target_weight", [1.0, 0.7])
def test_dkd_of_two_labels_is_the_soft_target(target_weight):
    labels = torch.tensor([1, 0, 0, 1, 0, 1, 1])
    for seed in range(5):
        student, teacher = draw(2, seed=seed)
        expected = target_weight * value(SoftTarget(4.0), student, teacher).item()
        for non_target_weight in (0.0, 8.0, 100.0):
            loss = DKD(4.0, target_weight, non_target_weight)
            assert value(loss, student, teacher, labels).item() == pytest.approx(expected, rel=1e-10)
            torch.testing.assert_close(
                gradient(loss, student, teacher, labels=labels),
                target_weight * gradient(SoftTarget(4.0), student, teacher),
                rtol=1e-9,
                atol=1e-12,
            )
        assert dkd(student, teacher, labels, 4.0, 0.0, 1.0).item() == 0
    assert f"soft_target times target_weight={target_weight}" in DKD(4.0, target_weight).degenerate(2)


def test_nkd_of_two_labels_is_the_label_loss_by_the_teachers_trust():
    student, teacher = draw(2)
    labelled = [(b, y) for b, y in enumerate(LABELS.tolist()) if y >= 0]
    expected = -sum(teacher.softmax(-1)[b, y] * student.log_softmax(-1)[b, y] for b, y in labelled) / len(labelled)
    for temperature, gamma in ((1.0, 1.5), (4.0, 0.0), (4.0, 9.0)):
        assert value(NKD(temperature, gamma), student, teacher).item() == pytest.approx(expected.item(), rel=1e-12)
    assert "gamma and temperature do nothing" in NKD().degenerate(2)


def test_defaults_are_those_of_the_papers():
    assert (DKD().target_weight, DKD().non_target_weight) == (1, 8)
    assert NKD().gamma == 1.5


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (DKD, {"temperature": 0}, ["temperature", "a number in [0.01, 1000]", "found 0"]),
        (NKD, {"temperature": "warm"}, ["temperature", "'warm'"]),
        (DKD, {"weight": -1}, ["weight", "of at least 0", "-1"]),
        (DKD, {"target_weight": -0.1}, ["target_weight", "of at least 0", "-0.1"]),
        (DKD, {"non_target_weight": None}, ["non_target_weight", "of at least 0", "None"]),
        (NKD, {"gamma": -2}, ["gamma", "of at least 0", "-2"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)
