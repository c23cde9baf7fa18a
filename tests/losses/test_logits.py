"""The label loss and the logit terms, against numpy in float64 and against what must hold of them."""

import inspect
import math
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.errors import KDError
from kd.losses.label import LabelLoss, label_loss
from kd.losses.logits import (
    JensenShannon,
    LogitMSE,
    ProbabilityMSE,
    ReverseKL,
    SoftCrossEntropy,
    SoftTarget,
    SymmetricCrossEntropy,
    logit_mse,
    soft_target,
)

# --- the same formulas, written again in numpy


def probabilities(logits, temperature):
    exponentials = np.exp(logits / temperature)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def kl(first, second):
    return (first * np.log(first / second)).sum() / len(first)


def cross_entropy(first, second):
    return -(first * np.log(second)).sum() / len(first)


def tempered(formula):
    """A formula on the probabilities of student and teacher, times temperature squared."""
    return lambda s, t, temperature: (
        temperature**2 * formula(probabilities(s, temperature), probabilities(t, temperature))
    )


def symmetric(alpha_sym):
    return lambda s, t: alpha_sym * cross_entropy(t, s) + (1 - alpha_sym) * (cross_entropy(s, t) - cross_entropy(s, s))


def jensen_shannon_with(beta):
    def formula(s, t):
        mixture = beta * t + (1 - beta) * s
        return beta * kl(t, mixture) + (1 - beta) * kl(s, mixture)

    return formula


def centred(difference):
    return difference - difference.mean(axis=1, keepdims=True)


TERMS = {
    "soft_target": (SoftTarget, {}, tempered(lambda s, t: kl(t, s))),
    "soft_cross_entropy": (SoftCrossEntropy, {}, tempered(lambda s, t: cross_entropy(t, s))),
    "soft_cross_entropy_per_label": (
        SoftCrossEntropy,
        {"normalisation": "labels"},
        tempered(lambda s, t: -np.mean(t * np.log(s))),
    ),
    "logit_mse": (LogitMSE, {}, lambda s, t, _: np.mean((s - t) ** 2)),
    "logit_mse_sum": (
        LogitMSE,
        {"reduction_over_labels": "sum"},
        lambda s, t, _: ((s - t) ** 2).sum() / len(s),
    ),
    "logit_mse_centred": (LogitMSE, {"centred": True}, lambda s, t, _: np.mean(centred(s - t) ** 2)),
    "probability_mse": (ProbabilityMSE, {}, tempered(lambda s, t: np.mean((s - t) ** 2))),
    "probability_mse_sum": (
        ProbabilityMSE,
        {"reduction_over_labels": "sum"},
        tempered(lambda s, t: ((s - t) ** 2).sum() / len(s)),
    ),
    "symmetric": (SymmetricCrossEntropy, {}, tempered(symmetric(0.5))),
    "symmetric_forward": (SymmetricCrossEntropy, {"alpha_sym": 0.8}, tempered(symmetric(0.8))),
    "symmetric_reverse": (SymmetricCrossEntropy, {"alpha_sym": 0}, tempered(symmetric(0.0))),
    "symmetric_divide": (
        SymmetricCrossEntropy,
        {"alpha_sym": 0.7, "temperature_form": "divide"},
        lambda s, t, temperature: symmetric(0.7)(probabilities(s, 1), probabilities(t, 1)) / temperature,
    ),
    "reverse_kl": (ReverseKL, {}, tempered(lambda s, t: kl(s, t))),
    "jensen_shannon": (JensenShannon, {}, tempered(jensen_shannon_with(0.5))),
    "jensen_shannon_teacher": (JensenShannon, {"beta": 0.9}, tempered(jensen_shannon_with(0.9))),
}
ZERO_AT_EQUALITY = [name for name in TERMS if "cross_entropy" not in name and "symmetric" not in name] + [
    "symmetric_reverse"
]


def build(name, temperature=2.0):
    term, options, _ = TERMS[name]
    return term(**({} if term is LogitMSE else {"temperature": temperature}), **options)


def value(loss, student_logits, teacher_logits):
    return loss(SequenceClassifierOutput(logits=student_logits), SequenceClassifierOutput(logits=teacher_logits), {})


def draw(num_labels, rows=7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 2 * torch.randn(2, rows, num_labels, generator=generator, dtype=dtype)
    return student.requires_grad_(), teacher.requires_grad_()


def gradient(loss, student_logits, teacher_logits):
    return torch.autograd.grad(value(loss, student_logits, teacher_logits), student_logits)[0]


all_terms = pytest.mark.parametrize("name", TERMS)

# --- the terms


@all_terms
@pytest.mark.parametrize("num_labels", [2, 3, 5])
@pytest.mark.parametrize("temperature", [1, 2, 4])
def test_formula(name, num_labels, temperature):
    student, teacher = draw(num_labels)
    expected = TERMS[name][2](student.detach().numpy(), teacher.detach().numpy(), temperature)
    loss = build(name, temperature)
    assert value(loss, student, teacher).shape == ()
    assert value(loss, student, teacher).item() == pytest.approx(expected, rel=1e-10)
    assert value(loss, student.float(), teacher.float()).item() == pytest.approx(expected, rel=1e-4)
    assert loss.needs == {"logits"}
    assert not list(loss.parameters())


@all_terms
def test_value_and_gradient_agree(name):
    student, teacher = draw(3)
    assert torch.autograd.gradcheck(lambda logits: value(build(name), logits, teacher.detach()), student)


@all_terms
def test_row_order_changes_nothing(name):
    student, teacher = draw(3)
    order = torch.randperm(len(student), generator=torch.Generator().manual_seed(1))
    reordered = value(build(name), student[order], teacher[order]).item()
    assert reordered == pytest.approx(value(build(name), student, teacher).item(), rel=1e-12)
    shuffled_against_each_other = value(build(name), student[order], teacher).item()
    assert shuffled_against_each_other != pytest.approx(reordered, rel=1e-3)


@pytest.mark.parametrize("name", ZERO_AT_EQUALITY)
def test_zero_at_equality_only(name):
    student, teacher = draw(3)
    assert value(build(name), teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert value(build(name), student, teacher).item() > 0.01


@all_terms
@pytest.mark.parametrize("num_labels", [2, 3])
def test_least_at_the_teacher(name, num_labels):
    """No term has a slope where student and teacher agree, and each has one elsewhere, at two labels too."""
    student, teacher = draw(num_labels)
    equal = teacher.detach().clone().requires_grad_()
    assert gradient(build(name), equal, teacher).abs().max() < 1e-12
    assert gradient(build(name), student, teacher).abs().max() > 1e-3
    assert build(name).degenerate(num_labels) is None


@all_terms
def test_gradient_reaches_the_student_only(name):
    student, teacher = draw(3)
    value(build(name), student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@all_terms
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_stays_finite_and_right(name, dtype, autocast):
    student = torch.tensor([[60, -60, 0], [-60, 60, 0], [1, 2, 3]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-60, 60, 0], [-60, 60, 0], [2, 2, 2]], dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = value(build(name, temperature=1.5), student, teacher)
    assert result.dtype == torch.float32
    result.backward()
    assert student.grad.isfinite().all()
    # these logits are whole numbers, exact in every type: nothing but float32 rounding may be lost
    expected = value(build(name, temperature=1.5), student.double(), teacher.double())
    assert result.item() == pytest.approx(expected.item(), rel=1e-5)


def test_soft_target_gradient():
    student, teacher = draw(5)
    temperature = 3.0
    expected = temperature * ((student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)) / 7
    torch.testing.assert_close(gradient(SoftTarget(temperature), student, teacher), expected)


@pytest.mark.parametrize("num_labels", [2, 5])
def test_soft_target_at_high_temperature_is_half_the_centred_logit_mse(num_labels):
    student, teacher = draw(num_labels)
    limit = logit_mse(student, teacher, centred=True).item() / 2
    errors = [abs(soft_target(student, teacher, temperature).item() / limit - 1) for temperature in (100, 1000)]
    assert errors[0] < 1e-2
    assert errors[1] < 1e-3


@pytest.mark.parametrize(("normalisation", "share"), [("batch", 1), ("labels", 1 / 5)])
def test_soft_cross_entropy_has_the_gradient_of_the_soft_target(normalisation, share):
    student, teacher = draw(5)
    torch.testing.assert_close(
        gradient(SoftCrossEntropy(2.0, normalisation), student, teacher),
        share * gradient(SoftTarget(2.0), student, teacher),
    )


@pytest.mark.parametrize("alpha_sym", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("temperature_form", ["softmax", "divide"])
def test_symmetric_cross_entropy_leads_to_the_teacher_and_not_to_a_one_hot(alpha_sym, temperature_form):
    teacher = torch.tensor([[0.599, 0.401]], dtype=torch.float64).log()
    student = torch.zeros_like(teacher, requires_grad=True)
    loss = SymmetricCrossEntropy(2.0, alpha_sym, temperature_form)
    optimizer = torch.optim.SGD([student], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        value(loss, student, teacher).backward()
        optimizer.step()
    assert student.softmax(-1)[0, 0].item() == pytest.approx(0.599, abs=1e-3)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jensen_shannon_is_bounded(beta):
    apart = torch.tensor([[40.0, -40.0]], dtype=torch.float64)
    entropy_of_beta = -(beta * math.log(beta) + (1 - beta) * math.log(1 - beta))
    assert value(JensenShannon(1.0, beta), apart, -apart).item() == pytest.approx(entropy_of_beta)
    assert entropy_of_beta <= math.log(2)
    for seed in range(20):
        assert 0 <= value(JensenShannon(1.0, beta), *draw(3, seed=seed)).item() <= entropy_of_beta


@pytest.mark.parametrize("temperature", [1, 2, 8])
def test_jensen_shannon_at_one_half_is_symmetric(temperature):
    student, teacher = draw(3)
    there, back = (
        value(JensenShannon(temperature), student, teacher),
        value(JensenShannon(temperature), teacher, student),
    )
    assert there.item() == pytest.approx(back.item())


@all_terms
def test_one_label_teaches_nothing_and_says_so(name):
    student, teacher = draw(1)
    nothing = gradient(build(name), student, teacher).abs().max() < 1e-12
    assert nothing == (build(name).degenerate(1) is not None)


# --- options and errors


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (SoftTarget, {"temperature": 0}, ["temperature", "> 0", "found 0"]),
        (ReverseKL, {"temperature": -1.0}, ["temperature", "> 0", "-1.0"]),
        (SoftCrossEntropy, {"temperature": math.nan}, ["temperature", "nan"]),
        (ProbabilityMSE, {"temperature": "warm"}, ["temperature", "'warm'"]),
        (JensenShannon, {"temperature": math.inf}, ["temperature", "inf"]),
        (LogitMSE, {"weight": -0.5}, ["weight", ">= 0", "-0.5"]),
        (SoftTarget, {"weight": None}, ["weight", "None"]),
        (SoftCrossEntropy, {"normalisation": "mean"}, ["normalisation", "batch or labels", "'mean'"]),
        (LogitMSE, {"reduction_over_labels": "none"}, ["reduction_over_labels", "mean or sum", "'none'"]),
        (LogitMSE, {"centred": "yes"}, ["centred", "True or False", "'yes'"]),
        (ProbabilityMSE, {"reduction_over_labels": ["sum"]}, ["mean or sum", "['sum']"]),
        (SymmetricCrossEntropy, {"alpha_sym": 1.1}, ["alpha_sym", "[0, 1]", "1.1"]),
        (SymmetricCrossEntropy, {"temperature_form": "plain"}, ["temperature_form", "softmax or divide"]),
        (JensenShannon, {"beta": 0}, ["beta", "excluded", "found 0"]),
        (JensenShannon, {"beta": 1.0}, ["beta", "excluded", "found 1.0"]),
        (LabelLoss, {"label_smoothing": 1.0}, ["label_smoothing", "[0, 1)", "1.0"]),
        (LabelLoss, {"label_smoothing": "some"}, ["label_smoothing", "'some'"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)


@all_terms
@pytest.mark.parametrize("num_labels", [1, 3])
def test_other_number_of_labels_is_refused(name, num_labels):
    with pytest.raises(KDError, match=rf"student \[4, 2\] and teacher \[4, {num_labels}\]"):
        value(build(name), torch.zeros(4, 2), torch.zeros(4, num_labels))


LOGIT_LOSS_FILES = [
    file
    for file in sorted((Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))
    if "kd.losses.logits." in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("file", LOGIT_LOSS_FILES, ids=lambda file: file.stem)
def test_yaml_names_every_option(file):
    config = OmegaConf.create({"temperature": 3.0, "loss": OmegaConf.load(file)})
    assert list(config.loss) == [file.stem]
    node = config.loss[file.stem]
    loss = hydra.utils.instantiate(node)
    assert set(node) - {"_target_"} == set(inspect.signature(type(loss)).parameters)
    assert getattr(loss, "temperature", 3.0) == 3.0
    assert loss.weight == 1.0


# --- the label loss


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_labels", [2, 5])
def test_label_loss_is_the_mean_over_labelled_rows(num_labels, label_smoothing):
    logits, _ = draw(num_labels)
    labels = torch.tensor([0, -100, 1, 1, -100, 0, 1])
    terms = [
        -np.log(probabilities(row[None], 1)[0])
        @ ((1 - label_smoothing) * np.eye(num_labels)[label] + label_smoothing / num_labels)
        for row, label in zip(logits.detach().numpy(), labels.numpy(), strict=True)
        if label >= 0
    ]
    loss = LabelLoss(label_smoothing)(logits, labels)
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-10)
    loss.backward()
    assert (logits.grad[labels == -100] == 0).all()
    assert (logits.grad[labels != -100] != 0).all()


def test_label_loss_equals_torch_where_all_rows_are_labelled():
    logits, _ = draw(3, dtype=torch.float32)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    torch.testing.assert_close(label_loss(logits, labels), functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_label_gives_zero_and_zero_gradient(label_smoothing, dtype):
    logits = torch.tensor([[60.0, -60.0], [1.0, 2.0]], dtype=dtype, requires_grad=True)
    loss = label_loss(logits, torch.tensor([-100, -100]), label_smoothing)
    assert loss.item() == 0
    loss.backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_label_loss_is_float32_in_half_precision(dtype, autocast):
    logits = torch.tensor([[60, -60], [2, 1]], dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = label_loss(logits, torch.tensor([1, 0]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((120 + math.log1p(math.exp(-1))) / 2, rel=1e-6)
    assert logits.grad.isfinite().all()
