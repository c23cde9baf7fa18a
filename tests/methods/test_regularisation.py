"""R-Drop and mixup: their formulas, and what they do to a student."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kd.errors import KDError
from kd.losses.correlation import DIST
from kd.losses.logits import SoftTarget
from kd.methods.confidence import OnlyCorrect
from kd.methods.distillation import Distillation
from kd.methods.regularisation import regularised, symmetric_kl
from kd.methods.schedules import Constant
from kd.methods.supervised import Supervised
from kd.methods.weighting import UncertaintyWeighting
from kd.options.methods import DistillationOptions, SupervisedOptions
from tests.methods.test_base import RECIPE, ROWS, fit, make_split, make_student
from tests.methods.tools import objective

BATCH = {"values": torch.tensor([[1.0, -1.0], [0.5, 2.0], [0.0, 3.0]]), "labels": torch.tensor([0, 1, 1])}


def terms(logits, batch):
    loss = F.cross_entropy(logits, batch["labels"])
    return {"total": loss, "label": loss}


def test_r_drop_adds_the_divergence_of_two_passes():
    seen = []

    def with_dropout(batch):
        seen.append(batch["values"] + torch.arange(6.0).view(6, 1) * torch.tensor([1.0, 0.0]))
        return seen[0]

    parts = regularised(SupervisedOptions(r_drop=2.0), with_dropout, terms, BATCH)
    one, two = (each.softmax(1) for each in seen[0].chunk(2))
    kl = ((one * (one / two).log()).sum(1) + (two * (two / one).log()).sum(1)).mean() / 2
    torch.testing.assert_close(parts["r_drop"], kl)
    label = (F.cross_entropy(seen[0][:3], BATCH["labels"]) + F.cross_entropy(seen[0][3:], BATCH["labels"])) / 2
    torch.testing.assert_close(parts["label"], label)
    torch.testing.assert_close(parts["total"], label + 2 * kl)


def test_mixup_is_the_cross_entropy_to_mixed_probabilities():
    logits = BATCH["values"].clone().requires_grad_()
    torch.manual_seed(5)
    parts = regularised(SupervisedOptions(mixup=0.5), lambda batch: logits, terms, BATCH)
    torch.manual_seed(5)
    share, order = torch.distributions.Beta(0.5, 0.5).sample(), torch.randperm(3)
    assert order.tolist() != [0, 1, 2] and 0.01 < share < 0.99
    hot = F.one_hot(BATCH["labels"], 2).float()
    targets = share * hot + (1 - share) * hot[order]
    expected = F.cross_entropy(share * logits + (1 - share) * logits[order], targets)
    torch.testing.assert_close(parts["total"], expected)


def test_consistency_adds_the_divergence_from_the_counterpart_over_all_rows():
    def first_token(batch):
        return torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.5, 3.0], [1.0, 1.0]])[batch["input_ids"][:, 0]]

    ids, mask = torch.tensor([[1], [2], [0]]), torch.ones(3, 1, dtype=int)
    pairs = {"exchanged_input_ids": torch.tensor([[3], [0], [0]]), "exchanged_attention_mask": mask.clone()}
    pairs["exchanged_attention_mask"][2] = 0  # the last row has no counterpart
    batch = {"input_ids": ids, "attention_mask": mask, "labels": BATCH["labels"], **pairs}
    parts = regularised(SupervisedOptions(consistency=3.0), first_token, terms, batch)
    one, two = first_token(batch)[:2], first_token({"input_ids": pairs["exchanged_input_ids"]})[:2]
    torch.testing.assert_close(parts["consistency"], symmetric_kl(one, two) * 2 / 3)
    torch.testing.assert_close(parts["total"], parts["label"] + 3 * parts["consistency"])
    none = {**batch, "exchanged_attention_mask": torch.zeros(3, 1, dtype=int)}
    assert regularised(SupervisedOptions(consistency=3.0), first_token, terms, none)["consistency"] == 0


def test_two_passes_agree_more_after_r_drop():
    split = make_split()
    apart = []
    for weight in (0.0, 10.0):
        student = make_student()
        curve = fit(Supervised(student, RECIPE, SupervisedOptions(r_drop=weight)), split, epochs=6)
        torch.manual_seed(7)
        batch = split[list(range(ROWS))]
        passes = [student.train()(batch["input_ids"], batch["attention_mask"]).logits for _ in range(8)]
        apart.append(np.mean([symmetric_kl(*passes[at : at + 2]).item() for at in range(0, 8, 2)]))
        assert np.isfinite(curve.losses).all()
    assert apart[1] < apart[0] / 2


def test_a_distilled_student_is_regularised_by_both():
    columns = {"teacher_logits": np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)}
    columns["teacher_answered"] = np.arange(ROWS) % 3 > 0  # a teacher that is a file lacks some rows
    curves = []
    for options in ({}, {"mixup": 0.4}, {"mixup": 0.4, "r_drop": 1.0}):
        terms = objective({"soft_target": SoftTarget(2.0)})
        method = Distillation(make_student(), RECIPE, terms, options=DistillationOptions(**options))
        curves.append(fit(method, make_split(columns)).losses)
    assert len({tuple(curve) for curve in curves}) == 3


def test_fair_weights_need_losses_that_weigh_rows_and_no_other_weights():
    weighed = objective({"soft_target": SoftTarget(2.0)}, confidence=OnlyCorrect())
    unweighed = objective({"dist": DIST(2.0)})
    for terms, sentence in ((weighed, "both weigh rows"), (unweighed, "loss 'dist' has no weight")):
        with pytest.raises(KDError, match=sentence):
            Distillation(make_student(), RECIPE, terms, options=DistillationOptions(fair_weights=1.0))


def test_mixup_needs_a_constant_weighting():
    terms = objective({"soft_target": SoftTarget(2.0)}, Constant(0.5), weighting=UncertaintyWeighting)
    with pytest.raises(KDError, match=r"method\.mixup computes each term twice a step"):
        Distillation(make_student(), RECIPE, terms, options=DistillationOptions(mixup=0.2))
