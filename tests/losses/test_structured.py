"""DKD, NKD, DIST, standardised and annealed logits, against numpy in float64 and against what must hold of them."""

import inspect
import math
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from kd.contract import Answer
from kd.errors import KDError
from kd.losses.logits import LogitMSE, SoftTarget, soft_target
from kd.losses.structured import DIST, DKD, NKD, Annealing, Standardised, dkd

ROWS = 7
LABELS = torch.tensor([1, 0, -100, 1, 0, -100, 1])
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5, 0.25, 1.75], dtype=torch.float64)

# --- the same formulas, written again in numpy, with loops and without log-probabilities


def softmax(logits, temperature=1.0):
    exponentials = np.exp(np.asarray(logits) / temperature)
    return exponentials / exponentials.sum()


def kl(first, second):
    return sum(p * math.log(p / q) for p, q in zip(first, second, strict=True))


def over_labelled(row_term, s, t, labels, weights):
    terms = [w * row_term(s[b], t[b], y) for b, (y, w) in enumerate(zip(labels, weights, strict=True)) if y >= 0]
    return sum(terms) / len(terms)


def dkd_formula(s, t, labels, weights, temperature, alpha=1.0, beta=8.0):
    def row(s, t, y):
        p_s, p_t = softmax(s, temperature), softmax(t, temperature)
        target = kl([p_t[y], 1 - p_t[y]], [p_s[y], 1 - p_s[y]])
        non_target = kl(softmax(np.delete(t, y), temperature), softmax(np.delete(s, y), temperature))
        return temperature**2 * (alpha * target + beta * non_target)

    return over_labelled(row, s, t, labels, weights)


def nkd_formula(s, t, labels, weights, temperature, gamma=1.5):
    def row(s, t, y):
        others_s, others_t = (softmax(np.delete(z, y), temperature) for z in (s, t))
        non_target = -(others_t * np.log(others_s)).sum()
        return -softmax(t)[y] * math.log(softmax(s)[y]) + gamma * temperature**2 * non_target

    return over_labelled(row, s, t, labels, weights)


def dist_formula(s, t, labels, weights, temperature, beta=1.0, gamma=1.0):
    p_s, p_t = (np.array([softmax(row, temperature) for row in z]) for z in (s, t))
    inter = 1 - np.mean([np.corrcoef(p_s[b], p_t[b])[0, 1] for b in range(len(s))])
    intra = 1 - np.mean([np.corrcoef(p_s[:, c], p_t[:, c])[0, 1] for c in range(s.shape[1])])
    return temperature**2 * (beta * inter + gamma * intra)


def standardised_formula(over):
    def z_score(z):
        if over == "batch":
            z = z - z.mean(axis=1, keepdims=True)
        axis = 1 if over == "labels" else 0
        return (z - z.mean(axis=axis, keepdims=True)) / (z.std(axis=axis, ddof=1, keepdims=True) + 1e-7)

    def formula(s, t, labels, weights, temperature):
        rows = zip(z_score(s), z_score(t), weights, strict=True)
        return temperature**2 * np.mean([w * kl(softmax(t, temperature), softmax(s, temperature)) for s, t, w in rows])

    return formula


def annealing_formula(s, t, labels, weights, temperature, max_temperature=8.0):
    target = t * (1 - (temperature - 1) / max_temperature)
    return np.mean(weights[:, None] * (s - target) ** 2)


# term, options, formula, relative error left by an epsilon of the term that the formula does not have
TERMS = {
    "dkd": (DKD, {}, dkd_formula, 1e-10),
    "dkd_weights": (
        DKD,
        {"target_weight": 0.3, "non_target_weight": 2},
        lambda *args: dkd_formula(*args, alpha=0.3, beta=2),
        1e-10,
    ),
    "nkd": (NKD, {}, nkd_formula, 1e-10),
    "nkd_gamma": (NKD, {"gamma": 0.4}, lambda *args: nkd_formula(*args, gamma=0.4), 1e-10),
    "dist": (DIST, {}, dist_formula, 1e-5),
    "dist_weights": (
        DIST,
        {"inter_weight": 2, "intra_weight": 0.5},
        lambda *args: dist_formula(*args, beta=2, gamma=0.5),
        1e-5,
    ),
    "standardised": (Standardised, {}, standardised_formula("labels"), 1e-10),
    "standardised_batch": (Standardised, {"over": "batch"}, standardised_formula("batch"), 1e-10),
    "annealing": (Annealing, {}, annealing_formula, 1e-10),
    "annealing_max": (Annealing, {"max_temperature": 20.0}, lambda *args: annealing_formula(*args, 20.0), 1e-10),
}
READ_LABELS = [name for name in TERMS if name.startswith(("dkd", "nkd"))]
READ_THE_BATCH = ["dist", "dist_weights", "standardised_batch"]
all_terms = pytest.mark.parametrize("name", TERMS)


def build(name, temperature=2.0):
    term, options, *_ = TERMS[name]
    return term(temperature=temperature, **options)


def value(loss, student_logits, teacher_logits, labels=LABELS, row_weights=None):
    batch = {"labels": labels} | ({} if row_weights is None else {"row_weights": row_weights})
    return loss(Answer(logits=student_logits), Answer(logits=teacher_logits), batch)


def draw(num_labels, rows=ROWS, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 2 * torch.randn(2, rows, num_labels, generator=generator, dtype=dtype)
    return student.requires_grad_(), teacher.requires_grad_()


def gradient(loss, student_logits, teacher_logits, **batch):
    return torch.autograd.grad(value(loss, student_logits, teacher_logits, **batch), student_logits)[0]


# --- all terms


@all_terms
@pytest.mark.parametrize("num_labels", [3, 5])
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
    assert loss.needs == {"logits"} and loss.tempered and not list(loss.parameters())


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


@pytest.mark.parametrize("name", [name for name in TERMS if not name.startswith("nkd")])
def test_least_at_the_teacher_and_only_there(name):
    loss, (student, teacher) = build(name, temperature=1.0), draw(3)
    equal = teacher.detach().clone().requires_grad_()
    assert value(loss, equal, teacher).item() == pytest.approx(0, abs=1e-6)
    assert gradient(loss, equal, teacher).abs().max() < 1e-6
    assert value(loss, student, teacher).item() > 0.01


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


@all_terms
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


# --- terms that read the gold label


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


# --- terms that read the batch, and annealing


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


@pytest.mark.parametrize("over", ["labels", "batch"])
def test_standardised_ignores_the_range_of_the_logits(over):
    _, teacher = draw(4)
    assert value(Standardised(2.0, over), 30 * teacher + 5, teacher).item() == pytest.approx(0, abs=1e-10)
    assert value(SoftTarget(2.0), 30 * teacher + 5, teacher).item() > 1


def test_standardised_over_the_batch_leaves_the_mean_margin_alone():
    _, teacher = draw(2)
    shifted = teacher + torch.tensor([0.0, 3.0])
    assert value(Standardised(2.0, "batch"), shifted, teacher).item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("temperature", "share"), [(1, 1.0), (5, 0.5), (8, 0.125)])
def test_annealing_raises_the_target_as_the_temperature_falls(temperature, share):
    student, teacher = draw(3)
    loss = Annealing(temperature=8.0)
    loss.temperature = temperature
    assert value(loss, share * teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(
        gradient(loss, student, teacher), gradient(LogitMSE(), student, share * teacher.detach())
    )


# --- two labels, as losses.md documents them


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


def test_dist_of_two_labels_learns_over_the_batch_only():
    student, teacher = draw(2)
    assert gradient(DIST(1.0, intra_weight=0.0), student, teacher).abs().max() < 1e-5
    assert value(DIST(1.0, intra_weight=0.0), student, teacher).item() > 0.1
    assert gradient(DIST(1.0, inter_weight=0.0), student, teacher).abs().max() > 1e-2
    assert "times intra_weight=2.0" in DIST(1.0, intra_weight=2.0).degenerate(2)


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


@all_terms
def test_a_degeneracy_is_said_of_one_and_two_labels_only(name):
    loss = build(name)
    said_of_two = name not in ("standardised_batch", "annealing", "annealing_max")
    assert (loss.degenerate(2) is not None) == said_of_two
    assert loss.degenerate(3) is None


# --- options, errors, files


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (DKD, {"temperature": 0}, ["temperature", "> 0", "found 0"]),
        (NKD, {"temperature": "warm"}, ["temperature", "'warm'"]),
        (DIST, {"temperature": -1.0}, ["temperature", "> 0", "-1.0"]),
        (Standardised, {"temperature": math.nan}, ["temperature", "nan"]),
        (DKD, {"weight": -1}, ["weight", ">= 0", "-1"]),
        (DKD, {"target_weight": -0.1}, ["target_weight", ">= 0", "-0.1"]),
        (DKD, {"non_target_weight": None}, ["non_target_weight", ">= 0", "None"]),
        (NKD, {"gamma": -2}, ["gamma", ">= 0", "-2"]),
        (DIST, {"inter_weight": math.inf}, ["inter_weight", ">= 0", "inf"]),
        (DIST, {"intra_weight": "1"}, ["intra_weight", ">= 0", "'1'"]),
        (Standardised, {"over": "rows"}, ["over", "labels or batch", "'rows'"]),
        (Annealing, {"temperature": 9}, ["temperature", "from 1 to max_temperature=8.0", "found 9"]),
        (Annealing, {"temperature": 0.5}, ["temperature", "from 1 to max_temperature=8.0", "found 0.5"]),
        (Annealing, {"max_temperature": 0.5}, ["max_temperature", ">= 1", "0.5"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)


@all_terms
def test_other_number_of_labels_is_refused(name):
    with pytest.raises(KDError, match=r"student \[7, 2\] and teacher \[7, 3\]"):
        value(build(name), torch.zeros(7, 2), torch.zeros(7, 3))


FILES = [
    Path(__file__).parents[2] / "conf" / "loss" / f"{name}.yaml"
    for name in ("dkd", "dist", "nkd", "standardised", "annealing")
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_yaml_names_every_option(file):
    config = OmegaConf.create({"temperature": 3.0, "loss": OmegaConf.load(file)})
    assert list(config.loss) == [file.stem]
    node = config.loss[file.stem]
    loss = hydra.utils.instantiate(node)
    options = inspect.signature(type(loss)).parameters
    assert set(node) - {"_target_"} == set(options)
    assert loss.temperature == 3.0
    assert loss.weight == 1.0
    assert {name: node[name] for name in options if name != "temperature"} == {
        name: option.default for name, option in options.items() if name != "temperature"
    }


def test_defaults_are_those_of_the_papers():
    dkd, dist, nkd, standardised, annealing = (
        OmegaConf.to_container(OmegaConf.load(file), resolve=False)[file.stem] for file in FILES
    )
    assert (dkd["target_weight"], dkd["non_target_weight"]) == (1, 8)
    assert (dist["inter_weight"], dist["intra_weight"]) == (1, 1)
    assert nkd["gamma"] == 1.5
    assert Standardised().temperature == 2 and standardised["over"] == "labels"
    assert annealing["max_temperature"] == 8
