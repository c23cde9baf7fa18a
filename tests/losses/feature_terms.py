"""The terms on hidden states and relations with their formulas in numpy, and how to call them."""

import math
from itertools import product

import numpy as np
import torch

from kd.contract import Answer
from kd.losses.contrastive import CRD, CoDIR
from kd.losses.hint import PKD, VID, Cosine, Hint
from kd.losses.relation import CKA, RKD, SimilarityPreserving


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
