"""The methods on a tiny student and teacher: the objective, and who is trained, saved and in which mode."""

import copy
from functools import partial

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from kd.contract import Answer, Loss
from kd.data.batching import EncodedSplit, Ragged
from kd.data.module import TextDataModule
from kd.errors import KDError
from kd.features.feature import Feature
from kd.losses.label import LabelLoss
from kd.losses.logits import LogitMSE, SoftTarget
from kd.methods.base import decay_groups
from kd.methods.distillation import Distillation, FrozenTeacher, cached_teacher, check_outputs
from kd.methods.learning_rate import warm_up_and_decay
from kd.methods.objective import Objective
from kd.methods.schedules import Constant
from kd.methods.supervised import Supervised
from kd.models.bilstm import BiLSTM, BiLSTMConfig
from tests.conftest import bare_trainer

ROWS = 48


def make_teacher() -> BertForSequenceClassification:
    torch.manual_seed(1)
    return BertForSequenceClassification(
        BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    ).eval()


def make_student() -> BiLSTM:
    torch.manual_seed(0)
    return BiLSTM(BiLSTMConfig(vocab_size=50, embedding_size=8, hidden_size=8, num_labels=2, dropout=0.2))


def make_split(columns=None, unlabelled=False) -> EncodedSplit:
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(2, 9, ROWS))])
    tokens = Ragged(generator.integers(1, 50, offsets[-1]).astype(np.int32), offsets)
    labels = np.full(ROWS, -100) if unlabelled else generator.integers(0, 2, ROWS)
    return EncodedSplit(tokens, labels, 0, columns=columns or {})


@torch.no_grad()
def teacher_logits(teacher, split) -> np.ndarray:
    batch = split[list(range(len(split)))]
    return teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()


RECIPE = (
    LabelLoss(),
    partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1),
    partial(warm_up_and_decay, decay="linear", warm_up=0.1),
)


class Curve(lightning.Callback):
    """Every training loss, and whether the given modules were in evaluation mode."""

    def __init__(self, *watched: nn.Module):
        self.losses, self.watched = [], watched

    def on_train_batch_end(self, trainer, method, outputs, batch, batch_index):
        self.losses.append(outputs["loss"].item())
        assert all(not module.training for module in self.watched)


def fit(method, split=None, epochs=2, path=None, checkpoint=None, callbacks=(), **options) -> Curve:
    split = split or make_split()
    validation = make_split()
    curve = Curve()
    trainer = bare_trainer(
        max_epochs=epochs,
        enable_checkpointing=bool(path),
        default_root_dir=path,
        callbacks=[curve, *callbacks],
        **options,
    )
    trainer.fit(method, TextDataModule(split, validation, batch_size=16), ckpt_path=checkpoint, weights_only=True)
    curve.trainer = trainer
    return curve


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


def distillation(student, teacher=cached_teacher, alpha=0.5, losses=None) -> Distillation:
    terms = {"soft_target": SoftTarget(2.0)} if losses is None else losses
    return Distillation(student, *RECIPE, Objective(terms, Constant(alpha)), teacher)


def teacher_columns() -> dict[str, np.ndarray]:
    return {"teacher_logits": np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)}


class Fixed(Loss):
    """A term of one value."""

    def __init__(self, value: float, weight: float = 1.0):
        super().__init__(weight)
        self.value = value

    def term(self, student, teacher, batch):
        return student.logits.sum() * 0 + self.value


def total_of(objective: Objective, label: float) -> float:
    logits = torch.zeros(3, 2)
    pairs = [(Answer(logits=logits), Answer(logits=logits))]
    answers = {name: pairs for name in objective.transfer} if objective.asks_teacher(0.0) else {}
    batch = {"labels": torch.zeros(3, dtype=torch.long)}
    return objective(torch.tensor(label), answers, batch, 0.0, list)[0]["total"].item()


def test_objective_is_the_documented_sum():
    objective = Objective({"a": Fixed(2.0, 0.5), "b": Fixed(3.0, 2.0)}, Constant(0.3))
    assert total_of(objective, 5.0) == pytest.approx(0.7 * 5 + 0.3 * (0.5 * 2 + 2 * 3))


@pytest.mark.parametrize(("alpha", "left_out"), [(0.0, "transfer"), (1.0, "label")])
def test_a_share_of_zero_leaves_a_nan_out(alpha, left_out):
    nan = float("nan")
    label, term = (nan, 1.0) if left_out == "label" else (1.0, nan)
    assert total_of(Objective({"a": Fixed(term)}, Constant(alpha)), label) == 1.0


def test_alpha_zero_is_supervised_bit_for_bit():
    alone, distilled = make_student(), make_student()
    columns = {"teacher_logits": np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)}
    one = fit(Supervised(alone, *RECIPE))
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


def test_unlabelled_rows_add_nothing_to_the_label_loss():
    method = Supervised(make_student(), *RECIPE)
    split = make_split(unlabelled=True)
    assert method.losses(split[[0, 1, 2]])["total"].item() == 0.0


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


def test_resumed_equals_uninterrupted(tmp_path):
    columns = {"teacher_logits": np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)}
    whole, broken, resumed = make_student(), make_student(), make_student()

    class StopAfterTwo(lightning.Callback):
        def on_train_epoch_start(self, trainer, method):
            if trainer.current_epoch == 2:
                raise RuntimeError("killed")

    one = fit(distillation(whole), make_split(columns), epochs=4)
    keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    with pytest.raises(RuntimeError, match="killed"):
        fit(
            distillation(broken),
            make_split(columns),
            epochs=4,
            path=tmp_path,
            callbacks=[keep, StopAfterTwo()],
        )
    torch.manual_seed(123)  # the state of the generator at the restart must not matter
    two = fit(distillation(resumed), make_split(columns), epochs=4, checkpoint=tmp_path / "last.ckpt")
    assert one.losses[6:] == two.losses
    assert_same(weights(whole), weights(resumed))


def test_not_finite_loss_stops_with_the_rows():
    columns = {"teacher_logits": np.zeros((ROWS, 2), np.float32)}
    columns["teacher_logits"][5] = np.inf
    with pytest.raises(KDError, match=r"rows \[.*\b5\b.*\] is not finite at step \d.*soft_target=nan"):
        fit(distillation(make_student()), make_split(columns))


def test_not_finite_loss_leaves_the_last_good_checkpoint(tmp_path):
    class Break(lightning.Callback):
        def on_train_epoch_start(self, trainer, method):
            if trainer.current_epoch == 1:
                method.student.head.weight.data.fill_(float("nan"))

    keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    with pytest.raises(KDError, match="not finite at step 3"):
        fit(Supervised(make_student(), *RECIPE), path=tmp_path, callbacks=[keep, Break()])
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


def test_a_student_that_comes_in_evaluation_mode_is_trained_with_dropout():
    """As from_pretrained gives it."""
    modes = []

    class Look(lightning.Callback):
        def on_train_batch_start(self, trainer, method, batch, batch_index):
            modes.append(all(module.training for module in method.student.modules()))

    fit(Supervised(make_student().eval(), *RECIPE), callbacks=[Look()])
    assert modes == [True] * 6


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


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(KDError, match=r"alpha: expected .* in \[0, 1\]"):
        distillation(make_student(), alpha=alpha)


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


def test_gradient_clipping_and_mixed_precision_train(tmp_path):
    columns = {"teacher_logits": np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)}
    student = make_student()
    curve = fit(distillation(student), make_split(columns), precision="bf16-mixed", gradient_clip_val=0.1)
    assert np.isfinite(curve.losses).all()
    assert student.head.weight.dtype == torch.float32


def test_biases_and_norms_do_not_decay():
    model = make_teacher().requires_grad_(True)
    decayed, kept = decay_groups(model)
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim <= 1 for p in kept["params"])
    assert kept["weight_decay"] == 0 and "weight_decay" not in decayed
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("constant", [0, 0.5, 1, 1, 1, 1]),
        ("cosine", [0, 0.5, 1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_schedules(decay, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warm_up_and_decay(optimizer, 6, decay, warm_up=1 / 3)
    rates = []
    for _ in range(6):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected, abs=1e-4)


def test_unknown_schedule_is_refused():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(KDError, match="decay must be linear, cosine or constant, found 'step'"):
        warm_up_and_decay(optimizer, 6, "step", 0.1)
    with pytest.raises(KDError, match=r"warm_up must be a number in \[0, 1\), found 2"):
        warm_up_and_decay(optimizer, 6, "linear", 2)


def test_cached_teacher_gives_the_batch_columns():
    feature = Feature("hidden_states", 3, "mean")
    batch = {"teacher_logits": torch.ones(2, 2), "teacher_hidden_states-3-mean": torch.zeros(2, 5)}
    logits, features = cached_teacher(batch, [feature])
    assert logits.sum() == 4 and features[feature].shape == (2, 5)
