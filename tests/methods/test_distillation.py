"""Distillation: a live teacher and a cached one, who is trained, and what is refused."""

import copy

import lightning
import numpy as np
import pytest
import torch

from kd.contract import Loss
from kd.data.batching import Ragged
from kd.errors import KDError
from kd.features.feature import Feature
from kd.losses.logits import LogitMSE, SoftTarget
from kd.methods.distillation import FrozenTeacher, cached_teacher, check_outputs
from kd.methods.supervised import Supervised
from tests.methods.test_base import (
    RECIPE,
    ROWS,
    Curve,
    assert_same,
    distillation,
    fit,
    make_split,
    make_student,
    make_teacher,
    teacher_logits,
    weights,
)


def test_alpha_zero_is_supervised_bit_for_bit():
    alone, distilled = make_student(), make_student()
    columns = {"teacher_logits": np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)}
    one = fit(Supervised(alone, RECIPE))
    two = fit(distillation(distilled, alpha=0.0), make_split(columns))
    assert one.losses == two.losses
    assert_same(weights(alone), weights(distilled))


def test_alpha_one_reads_no_label():
    columns = {"teacher_logits": np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)}
    with_labels, without = make_student(), make_student()
    start = weights(with_labels)
    fit(distillation(with_labels, alpha=1.0), make_split(columns))
    fit(distillation(without, alpha=1.0), make_split(columns, unlabelled=True))
    assert_same(weights(with_labels), weights(without))
    assert not torch.equal(start["head.weight"], with_labels.head.weight)


def test_live_and_cached_teacher_give_the_same_curve():
    teacher = make_teacher()
    split = make_split()
    cached = make_split({"teacher_logits": teacher_logits(teacher, split)})
    live = fit(distillation(make_student(), FrozenTeacher(teacher)), split)
    stored = fit(distillation(make_student()), cached)
    np.testing.assert_allclose(live.losses, stored.losses, atol=1e-5)
    assert len(live.losses) == 6


def test_the_teacher_reads_its_own_tokens():
    teacher = make_teacher()
    split = make_split()
    other = copy.copy(split)
    object.__setattr__(other, "teacher_tokens", Ragged(split.tokens.values[::-1].copy(), split.tokens.offsets))
    batch = other[[0, 5, 7]]
    expected = teacher(input_ids=batch["teacher_input_ids"], attention_mask=batch["teacher_attention_mask"]).logits
    torch.testing.assert_close(FrozenTeacher(teacher)(batch)[0], expected)


def test_the_teacher_is_in_no_optimizer_checkpoint_or_train_mode(tmp_path):
    teacher, student = make_teacher(), make_student()
    before = weights(teacher)
    method = distillation(student, FrozenTeacher(teacher))
    curve = fit(method, path=tmp_path, callbacks=[Curve(teacher)])
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert_same(before, weights(teacher))
    assert {id(p) for p in method.parameters()} == {id(p) for p in student.parameters()}
    optimized = {id(p) for group in curve.trainer.optimizers[0].param_groups for p in group["params"]}
    assert optimized == {id(p) for p in student.parameters()}
    checkpoint = torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=True)
    kept = {name for name in checkpoint["state_dict"] if not name.startswith("student.")}
    assert kept == {"objective.scales", "objective.measured"}


class NeedsAttention(Loss):
    needs = frozenset({"queries", "keys"})

    def term(self, student, teacher, batch):
        return student.queries[-1].sum()


def test_a_loss_that_needs_what_the_student_lacks_is_refused():
    with pytest.raises(
        KDError,
        match="loss 'attention' needs attention maps; student 'kd-bilstm' gives only hidden states, logits",
    ):
        check_outputs("attention", NeedsAttention.needs, make_student().config, "student")
    with pytest.raises(KDError, match="compares attention maps, and method=distillation only logits"):
        distillation(make_student(), losses={"attention": NeedsAttention()})


def test_no_loss_is_refused():
    with pytest.raises(KDError, match="needs a transfer term"):
        distillation(make_student(), losses={})


def test_several_losses_are_weighted_and_logged():
    columns = {"teacher_logits": np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)}
    method = distillation(
        make_student().eval(), losses={"soft_target": SoftTarget(2.0, 0.5), "logit_mse": LogitMSE(weight=2.0)}
    )
    parts = method.losses(make_split(columns)[[0, 1, 2, 3]])
    expected = 0.5 * parts["label"] + 0.5 * (0.5 * parts["soft_target"] + 2 * parts["logit_mse"])
    torch.testing.assert_close(parts["total"], expected)


def test_ema_of_a_student_with_a_live_teacher(tmp_path):
    teacher, student = make_teacher(), make_student()
    ema = lightning.pytorch.callbacks.EMAWeightAveraging(decay=0.5)
    plain = make_student()
    fit(distillation(plain, FrozenTeacher(teacher)))
    fit(distillation(student, FrozenTeacher(teacher)), path=tmp_path, callbacks=[ema])
    assert not torch.equal(plain.head.weight, student.head.weight), "the saved weights are the average"
    checkpoint = torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=True)
    assert not any("teacher" in name for name in checkpoint["current_model_state"])


def test_cached_teacher_gives_the_batch_columns():
    feature = Feature("hidden_states", 3, "mean")
    batch = {"teacher_logits": torch.ones(2, 2), "teacher_hidden_states-3-mean": torch.zeros(2, 5)}
    logits, features = cached_teacher(batch, [feature])
    assert logits.sum() == 4 and features[feature].shape == (2, 5)
