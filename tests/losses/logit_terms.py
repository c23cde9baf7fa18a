"""All terms on logits with their formulas in numpy, and how to call them."""

import math

import numpy as np
import torch

from kd.contract import Answer
from kd.losses.annealing import Annealing
from kd.losses.correlation import DIST
from kd.losses.decoupled import DKD, NKD
from kd.losses.logits import LogitMSE, ProbabilityMSE, SoftCrossEntropy, SoftTarget
from kd.losses.reverse import JensenShannon, ReverseKL, SymmetricCrossEntropy
from kd.losses.standardised import Standardised

ROWS = 7
LABELS = torch.tensor([1, 0, -100, 1, 0, -100, 1])
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5, 0.25, 1.75], dtype=torch.float64)


def softmax(logits, temperature=1.0):
    exponentials = np.exp(np.asarray(logits) / temperature)
    return exponentials / exponentials.sum()


def cross_entropy(first, second):
    return -sum(p * math.log(q) for p, q in zip(first, second, strict=True))


def kl(first, second):
    return cross_entropy(first, second) - cross_entropy(first, first)


def over_rows(row_term):
    """A formula on the logits of a row, as the weighted mean over the rows."""

    def formula(s, t, labels, weights, temperature):
        return np.mean([w * row_term(s[b], t[b], temperature) for b, w in enumerate(weights)])

    return formula


def tempered(row_term):
    """A formula on the probabilities of a row, times temperature squared."""
    return over_rows(
        lambda s, t, temperature: temperature**2 * row_term(softmax(s, temperature), softmax(t, temperature))
    )


def symmetric(alpha_sym):
    return lambda s, t: alpha_sym * cross_entropy(t, s) + (1 - alpha_sym) * kl(s, t)


def jensen_shannon_with(beta):
    def formula(s, t):
        mixture = beta * t + (1 - beta) * s
        return beta * kl(t, mixture) + (1 - beta) * kl(s, mixture)

    return formula


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
    "soft_target": (SoftTarget, {}, tempered(lambda s, t: kl(t, s)), 1e-10),
    "soft_cross_entropy": (SoftCrossEntropy, {}, tempered(lambda s, t: cross_entropy(t, s)), 1e-10),
    "soft_cross_entropy_per_label": (
        SoftCrossEntropy,
        {"normalisation": "labels"},
        tempered(lambda s, t: -np.mean(t * np.log(s))),
        1e-10,
    ),
    "logit_mse": (LogitMSE, {}, over_rows(lambda s, t, _: np.mean((s - t) ** 2)), 1e-10),
    "logit_mse_sum": (
        LogitMSE,
        {"reduction_over_labels": "sum"},
        over_rows(lambda s, t, _: ((s - t) ** 2).sum()),
        1e-10,
    ),
    "logit_mse_centred": (LogitMSE, {"centred": True}, over_rows(lambda s, t, _: np.var(s - t)), 1e-10),
    "probability_mse": (ProbabilityMSE, {}, tempered(lambda s, t: np.mean((s - t) ** 2)), 1e-10),
    "probability_mse_sum": (
        ProbabilityMSE,
        {"reduction_over_labels": "sum"},
        tempered(lambda s, t: ((s - t) ** 2).sum()),
        1e-10,
    ),
    "symmetric": (SymmetricCrossEntropy, {}, tempered(symmetric(0.5)), 1e-10),
    "symmetric_forward": (SymmetricCrossEntropy, {"alpha_sym": 0.8}, tempered(symmetric(0.8)), 1e-10),
    "symmetric_reverse": (SymmetricCrossEntropy, {"alpha_sym": 0}, tempered(symmetric(0.0)), 1e-10),
    "symmetric_divide": (
        SymmetricCrossEntropy,
        {"alpha_sym": 0.7, "temperature_form": "divide"},
        over_rows(lambda s, t, temperature: symmetric(0.7)(softmax(s), softmax(t)) / temperature),
        1e-10,
    ),
    "reverse_kl": (ReverseKL, {}, tempered(kl), 1e-10),
    "jensen_shannon": (JensenShannon, {}, tempered(jensen_shannon_with(0.5)), 1e-10),
    "jensen_shannon_teacher": (JensenShannon, {"beta": 0.9}, tempered(jensen_shannon_with(0.9)), 1e-10),
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
    "dist_inter": (DIST, {"intra_weight": 0}, lambda *args: dist_formula(*args, gamma=0), 1e-5),
    "standardised": (Standardised, {}, standardised_formula("labels"), 1e-10),
    "standardised_batch": (Standardised, {"over": "batch"}, standardised_formula("batch"), 1e-10),
    "annealing": (Annealing, {}, annealing_formula, 1e-10),
    "annealing_max": (Annealing, {"max_temperature": 20.0}, lambda *args: annealing_formula(*args, 20.0), 1e-10),
}
READ_LABELS = ["dkd", "dkd_weights", "nkd", "nkd_gamma"]
READ_THE_BATCH = ["dist", "dist_weights", "standardised_batch"]
ZERO_AT_EQUALITY = [
    name
    for name in TERMS
    if name == "symmetric_reverse" or not name.startswith(("soft_cross_entropy", "symmetric", "nkd"))
]


def build(name, temperature=2.0):
    term, options, *_ = TERMS[name]
    return term(**({} if term is LogitMSE else {"temperature": temperature}), **options)


def value(loss, student_logits, teacher_logits, labels=None, row_weights=None):
    labels = LABELS[: len(student_logits)] if labels is None else labels
    batch = {"labels": labels} | ({} if row_weights is None else {"row_weights": row_weights})
    return loss(Answer(logits=student_logits), Answer(logits=teacher_logits), batch)


def draw(num_labels, rows=ROWS, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 2 * torch.randn(2, rows, num_labels, generator=generator, dtype=dtype)
    return student.requires_grad_(), teacher.requires_grad_()


def gradient(loss, student_logits, teacher_logits, **batch):
    return torch.autograd.grad(value(loss, student_logits, teacher_logits, **batch), student_logits)[0]
