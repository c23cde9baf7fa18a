"""What all methods do: resumption, checks against NaN, modes, parameter groups; and helpers of other tests."""

from functools import partial

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from kd.data.batching import EncodedSplit, Ragged
from kd.data.module import TextDataModule
from kd.errors import KDError
from kd.losses.label import LabelLoss
from kd.losses.logits import SoftTarget
from kd.methods.base import Recipe, copies, decay_groups, require_trained, trained
from kd.methods.distillation import Distillation, cached_teacher
from kd.methods.learning_rate import warm_up_and_decay
from kd.methods.objective import Objective
from kd.methods.schedules import Constant
from kd.methods.supervised import Supervised
from kd.models.bilstm import BiLSTM, BiLSTMConfig
from kd.models.hashed import HashedNGrams, HashedNGramsConfig
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


RECIPE = Recipe(
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
    return Distillation(student, RECIPE, Objective(terms, Constant(alpha)), teacher)


def make_hashed() -> HashedNGrams:
    """A student whose table has sparse gradients."""
    torch.manual_seed(0)
    return HashedNGrams(HashedNGramsConfig(vocab_size=50, embedding_size=8, hidden_size=8, num_labels=2, buckets=90))


@pytest.mark.parametrize("make_student", [make_student, make_hashed])
def test_resumed_equals_uninterrupted(make_student, tmp_path):
    clip = {"gradient_clip_val": 0.1}
    columns = {"teacher_logits": np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)}
    whole, broken, resumed = make_student(), make_student(), make_student()

    class StopAfterTwo(lightning.Callback):
        def on_train_epoch_start(self, trainer, method):
            if trainer.current_epoch == 2:
                raise RuntimeError("killed")

    one = fit(distillation(whole), make_split(columns), epochs=4, **clip)
    keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    with pytest.raises(RuntimeError, match="killed"):
        fit(
            distillation(broken),
            make_split(columns),
            epochs=4,
            path=tmp_path,
            callbacks=[keep, StopAfterTwo()],
            **clip,
        )
    torch.manual_seed(123)  # the state of the generator at the restart must not matter
    two = fit(distillation(resumed), make_split(columns), epochs=4, checkpoint=tmp_path / "last.ckpt", **clip)
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
        fit(Supervised(make_student(), RECIPE), path=tmp_path, callbacks=[keep, Break()])
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


def test_a_student_that_comes_in_evaluation_mode_is_trained_with_dropout():
    """As from_pretrained gives it."""
    modes = []

    class Look(lightning.Callback):
        def on_train_batch_start(self, trainer, method, batch, batch_index):
            modes.append(all(module.training for module in method.student.modules()))

    fit(Supervised(make_student().eval(), RECIPE), callbacks=[Look()])
    assert modes == [True] * 6


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


def test_a_training_that_changes_nothing_is_refused():
    method = Supervised(make_student(), RECIPE)
    before = copies(method)
    with pytest.raises(KDError, match="found no optimizer step"):
        require_trained(method, before, 0)
    with pytest.raises(KDError, match=r"found weights as before it after 3 steps .*raise optim\.optimizer\.lr"):
        require_trained(method, before, 3)
    with torch.no_grad():
        trained(method.student)[-1].add_(1e-30)
    with pytest.raises(KDError, match="found weights as before"):
        require_trained(method, before, 3)
    with torch.no_grad():
        trained(method.student)[-1].add_(1e-3)
    require_trained(method, before, 3)
    method.takes_steps = False  # a model that is fitted at once
    require_trained(method, copies(method), 0)
