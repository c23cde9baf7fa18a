"""The terms on hidden states and relations, against numpy in float64 and against what must hold of them."""

import inspect
import math
from itertools import product
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from kd.contract import Answer, FeatureLoss
from kd.errors import KDError
from kd.losses.contrastive import CRD, CoDIR, info_nce
from kd.losses.hint import PKD, VID, Cosine, Hint, cosine, pkd, unit
from kd.losses.relation import CKA, RKD, SimilarityPreserving, cka

# --- the same formulas, written again in numpy


def length(vector):
    return math.sqrt(vector @ vector)


def unit_rows(rows):
    return np.array([row / length(row) for row in rows])


def vid_formula(s, t, variances):
    deviations = np.sqrt(variances)
    densities = np.exp(-0.5 * ((t - s) / deviations) ** 2) / (deviations * np.sqrt(2 * np.pi))
    return np.mean(-np.log(densities)) - 0.5 * np.log(2 * np.pi)


def similarity_formula(s, t, _):
    grams = [unit_rows(np.array([[a @ b for b in side] for a in side])) for side in (s, t)]
    return np.linalg.norm(grams[0] - grams[1], "fro") ** 2 / len(s) ** 2


def huber(x):
    return np.where(np.abs(x) <= 1, x**2 / 2, np.abs(x) - 0.5)


def distances(rows):
    table = np.array([[length(a - b) for b in rows] for a in rows])
    return table / table[~np.eye(len(rows), dtype=bool)].mean()


def angles(rows):
    table = np.zeros([len(rows)] * 3)
    for i, j, k in product(range(len(rows)), repeat=3):
        if i != j and k != j:
            first, second = rows[i] - rows[j], rows[k] - rows[j]
            table[i, j, k] = first @ second / (length(first) * length(second))
    return table


def rkd_formula(distance_weight=25, angle_weight=50, angle_rows=32):
    return lambda s, t, _: (
        distance_weight * huber(distances(s) - distances(t)).mean()
        + angle_weight * huber(angles(s[:angle_rows]) - angles(t[:angle_rows])).mean()
    )


def hsic_1(first, second):
    """Song et al. 2012, equation 5."""
    rows, ones = len(first), np.ones(len(first))
    first, second = first - np.diag(np.diag(first)), second - np.diag(np.diag(second))
    return (
        np.trace(first @ second)
        + (ones @ first @ ones) * (ones @ second @ ones) / ((rows - 1) * (rows - 2))
        - 2 / (rows - 2) * (ones @ first @ second @ ones)
    ) / (rows * (rows - 3))


def cka_formula(s, t, _):
    first, second = s @ s.T, t @ t.T
    return 1 - hsic_1(first, second) / math.sqrt(hsic_1(first, first) * hsic_1(second, second))


def contrast_formula(contrast_temperature=0.07, excluded=()):
    def formula(s, t, _):
        total = 0
        for b in range(len(s)):
            cosines = [s[b] @ row / (length(s[b]) * length(row)) for row in t]
            kept = [c for c in range(len(t)) if (b, c) not in excluded]
            scores = np.exp(np.array(cosines) / contrast_temperature)
            total -= math.log(scores[b] / scores[kept].sum())
        return total / len(s)

    return formula


LABELS = torch.tensor([0, 1, 0, -100, -100, 1])
SAME_CLASS = {(0, 2), (2, 0), (1, 5), (5, 1)}

TERMS = {
    "hint": (Hint, {}, lambda s, t, _: np.mean((s - t) ** 2)),
    "pkd": (PKD, {}, lambda s, t, _: ((unit_rows(s) - unit_rows(t)) ** 2).sum() / len(s)),
    "pkd_mean": (PKD, {"reduction_over_width": "mean"}, lambda s, t, _: np.mean((unit_rows(s) - unit_rows(t)) ** 2)),
    "cosine": (Cosine, {}, lambda s, t, _: 1 - np.trace(unit_rows(s) @ unit_rows(t).T) / len(s)),
    "vid": (VID, {}, vid_formula),
    "similarity": (SimilarityPreserving, {}, similarity_formula),
    "rkd": (RKD, {}, rkd_formula()),
    "rkd_few": (
        RKD,
        {"distance_weight": 3.0, "angle_weight": 7, "angle_rows": 4},
        rkd_formula(distance_weight=3, angle_weight=7, angle_rows=4),
    ),
    "cka": (CKA, {}, cka_formula),
    "crd": (CRD, {}, contrast_formula()),
    "crd_classes": (
        CRD,
        {"contrast_temperature": 0.5, "exclude_same_class": True},
        contrast_formula(0.5, SAME_CLASS),
    ),
    "codir": (CoDIR, {"contrast_temperature": 0.2}, contrast_formula(0.2)),
}
ROW_BY_ROW = ["hint", "pkd", "pkd_mean", "cosine", "vid"]
RELATIONS = ["similarity", "rkd", "cka"]
CONTRASTS = ["crd", "crd_classes", "codir"]
ZERO_AT_EQUALITY = ["hint", "pkd", "pkd_mean", "cosine", *RELATIONS]

all_terms = pytest.mark.parametrize("name", TERMS)
token_terms = pytest.mark.parametrize("name", ROW_BY_ROW)


def build(name, **options):
    term, given, _ = TERMS[name]
    return term(**given, **options)


def draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()


def drawn_pair(name, rows=6, width=4, dtype=torch.float64):
    """States of student and teacher; of other widths where the term allows it."""
    other = width if TERMS[name][0].same_width else width + 3
    return draw(rows, width, dtype=dtype), draw(rows, other, seed=1, dtype=dtype)


def variances_of(width):
    return torch.linspace(0.3, 2.5, width, dtype=torch.float64)


def value(loss, student, teacher, labels=LABELS, mask=None):
    """The term of one pair or of several."""
    students, teachers = ((side,) if isinstance(side, torch.Tensor) else side for side in (student, teacher))
    logits = torch.zeros(len(students[0]), 2)
    return loss(
        Answer(logits=logits, hidden_states=students, variances=tuple(variances_of(s.shape[-1]) for s in students)),
        Answer(logits=logits, hidden_states=teachers),
        {"labels": labels[: len(logits)]} if mask is None else {"attention_mask": mask},
    )


def gradient(loss, student, teacher):
    return torch.autograd.grad(value(loss, student, teacher), student)[0]


# --- the terms


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
    assert loss.levels == (("sentence", "token") if name in ROW_BY_ROW else ("sentence",))
    assert (loss.level, loss.layers) == ("sentence", None)


@all_terms
def test_value_and_gradient_agree(name):
    student, teacher = drawn_pair(name)
    assert torch.autograd.gradcheck(lambda states: value(build(name), states, teacher.detach()), student)


def test_variances_learn():
    student, teacher = drawn_pair("vid")
    variances = variances_of(4).requires_grad_()
    answer = Answer(logits=torch.zeros(6, 2), hidden_states=(student,), variances=(variances,))
    VID()(answer, Answer(logits=torch.zeros(6, 2), hidden_states=(teacher,)), {}).backward()
    squares = (teacher - student).square().mean(0).detach()
    torch.testing.assert_close(variances.grad, (variances - squares).detach() / (8 * variances.detach() ** 2))


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


@pytest.mark.parametrize("name", RELATIONS)
def test_relations_do_not_see_rotation_and_scale(name):
    _, teacher = drawn_pair(name)
    rotation = torch.linalg.qr(draw(7, 7, seed=2).detach())[0]
    turned = 0.01 * teacher.detach() @ rotation
    assert value(build(name), turned, teacher).item() == pytest.approx(0, abs=1e-10)
    if name != "similarity":
        assert value(build(name), turned + 3, teacher).item() == pytest.approx(0, abs=1e-10)


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


# --- tokens


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


# --- rows that coincide, rows of zeros, batches of few rows


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


def test_unit_leaves_a_row_of_zeros_and_its_gradient_at_zero():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    lengths_one = unit(rows)
    lengths_one.sum().backward()
    assert lengths_one.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    assert rows.grad[1].tolist() == [0, 0]


# --- what must hold of single terms


def test_pkd_is_twice_cosine():
    student, teacher = drawn_pair("pkd")
    torch.testing.assert_close(pkd(student, teacher), 2 * cosine(student, teacher))


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


# --- options and errors


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (Hint, {"level": "word"}, ["level", "sentence or token", "'word'"]),
        (Cosine, {"weight": -1}, ["weight", ">= 0", "-1"]),
        (PKD, {"reduction_over_width": "max"}, ["reduction_over_width", "sum or mean", "'max'"]),
        (SimilarityPreserving, {"level": "token"}, ["level must be sentence", "'token'"]),
        (CKA, {"level": "token"}, ["level must be sentence", "'token'"]),
        (CRD, {"level": "token"}, ["level must be sentence", "'token'"]),
        (RKD, {"distance_weight": -1}, ["distance_weight", ">= 0", "-1"]),
        (RKD, {"angle_weight": math.nan}, ["angle_weight", "nan"]),
        (RKD, {"angle_rows": 2}, ["angle_rows", "a whole number >= 3", "found 2"]),
        (RKD, {"angle_rows": 8.0}, ["angle_rows", "a whole number", "8.0"]),
        (RKD, {"angle_rows": None}, ["angle_rows", "None"]),
        (CRD, {"contrast_temperature": 0}, ["contrast_temperature", "> 0", "found 0"]),
        (CoDIR, {"contrast_temperature": "cold"}, ["contrast_temperature", "'cold'"]),
        (CRD, {"exclude_same_class": "yes"}, ["exclude_same_class", "True or False", "'yes'"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)


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


def test_tokens_of_two_widths_are_refused():
    with pytest.raises(KDError, match=r"student \[6, 4\] and teacher \[6, 1\]"):
        value(Hint("token"), torch.zeros(2, 3, 4), torch.zeros(2, 3, 1), mask=torch.ones(2, 3))


def test_layers_of_codir_do_not_make_up_for_each_other():
    narrow, wide = torch.zeros(6, 3), torch.zeros(6, 5)
    with pytest.raises(KDError, match=r"student \[6, 3\] and teacher \[6, 5\]"):
        value(CoDIR(), (narrow, wide), (wide, narrow))


def test_other_number_of_variances_is_refused():
    answer = Answer(logits=torch.zeros(6, 2), hidden_states=(torch.zeros(6, 4),), variances=(torch.ones(1),))
    with pytest.raises(KDError, match=r"\[4\], found \[1\]"):
        VID()(answer, answer, {})


FILES = {
    "hint": Hint,
    "pkd": PKD,
    "cosine": Cosine,
    "vid": VID,
    "tinybert_hidden": Hint,
    "tinybert_embeddings": Hint,
    "similarity": SimilarityPreserving,
    "rkd": RKD,
    "cka": CKA,
    "crd": CRD,
    "codir": CoDIR,
}


@pytest.mark.parametrize("name", FILES)
def test_yaml_names_every_option(name):
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "loss" / f"{name}.yaml")
    assert list(config) == [name]
    loss = hydra.utils.instantiate(config[name], _convert_="all")
    parameters = inspect.signature(FILES[name]).parameters
    assert type(loss) is FILES[name]
    assert set(config[name]) - {"_target_"} == set(parameters)
    own = {
        "tinybert_hidden": {"level": "token", "layers": "uniform"},
        "tinybert_embeddings": {"level": "token", "layers": [[0, 0]]},
    }
    for option, parameter in parameters.items():
        assert getattr(loss, option) == own.get(name, {}).get(option, parameter.default)
    assert loss.weight == 1.0
