"""Hints: terms by hand, stages, who is trained, what is kept and resumed."""

import copy
import logging

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from kd.errors import KDError
from kd.features import attention as recording
from kd.features.fitted_mapper import PCA, Procrustes
from kd.features.mapper import AttentionPooling
from kd.features.matching import Matching
from kd.losses.attention import MiniLM
from kd.losses.hint import VID, Hint
from kd.losses.logits import LogitMSE, SoftTarget
from kd.losses.relation import CKA
from kd.methods.distillation import FrozenTeacher, cached_teacher
from kd.methods.hints import Hints
from kd.methods.schedules import LearnedTemperature, Switch
from kd.methods.supervised import Supervised
from kd.methods.weighting import GradNorm, PCGrad, UncertaintyWeighting
from kd.models import BiLSTM
from tests.features.test_matching import linear, make_student, states_of, vectors
from tests.methods.test_base import RECIPE, ROWS, Curve, assert_same, fit, make_split, weights
from tests.methods.tools import (
    Record,
    StopAt,
    assert_resumes,
    checkpoint_of,
    gradient_size,
    inputs_of,
    make_hints,
    objective,
    rates_of,
    recorded,
    with_columns,
)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_total_is_the_documented_sum(teacher, pooling):
    terms = objective({"logit_mse": LogitMSE(weight=3.0), "hint": Hint(weight=0.5)}, alpha=0.3)
    method = make_hints(teacher, terms=terms, layers=[[1, 2], [2, 3]], pooling=pooling).eval()
    batch = make_split()[list(range(12))]
    inputs, student, matching = inputs_of(batch), method.student, method.matchings["teacher"]
    mine, theirs = states_of(student, inputs), states_of(teacher, inputs)
    hints = []
    for own, other in ((1, 2), (2, 3)):
        mapped = linear(matching.mappers[f"{own}-sentence"], vectors(mine[own], inputs, pooling))
        hints.append(((mapped - vectors(theirs[other], inputs, pooling)) ** 2).mean())
    with torch.no_grad():
        logits = [model(**inputs).logits.double() for model in (student, teacher)]
    label = torch.nn.functional.cross_entropy(logits[0], batch["labels"]).item()
    mse = (logits[0] - logits[1]).square().mean().item()
    parts = method.losses(batch)
    assert parts["hint"].item() == pytest.approx(np.mean(hints), rel=1e-5)
    assert parts["label"].item() == pytest.approx(label, rel=1e-5)
    expected = 0.7 * label + 0.3 * (3 * mse + 0.5 * np.mean(hints))
    assert parts["total"].item() == pytest.approx(expected, rel=1e-5)
    assert set(parts) == {"total", "label", "logit_mse", "hint"}


def test_alpha_zero_is_supervised_bit_for_bit(teacher):
    alone, method = make_student("bilstm"), make_hints(teacher, terms=objective(alpha=0.0))
    one = fit(Supervised(alone, RECIPE))
    two = fit(method)
    assert one.losses == two.losses
    assert_same(weights(alone), weights(method.student))


def test_a_teacher_that_has_no_say_any_more_is_not_asked(teacher):
    live, calls = FrozenTeacher(teacher), []

    def source(batch, features):
        calls.append(len(features))
        return live(batch, features)

    fit(make_hints(teacher, terms=objective(alpha=Switch(0.5, 0.0, until=0.5)), source=source))
    assert calls == [2] * 3, "of six steps, and for its features too"


def test_gradient_reaches_student_and_mapper_and_never_the_teacher(teacher):
    before = weights(teacher)
    method = make_hints(teacher, terms=objective({"hint": Hint()}, alpha=1.0), layers=[[1, 3]])
    method.losses(make_split()[list(range(12))])["total"].backward()
    assert gradient_size(method.student.embedding) > 0 and gradient_size(method.student.lstm) > 0
    assert gradient_size(method.student.head) is None, "the head stands above what is matched"
    assert gradient_size(method.matchings) > 0
    assert gradient_size(teacher) is None
    curve = Curve(teacher)
    fit(method, callbacks=[curve])
    assert_same(before, weights(teacher))
    assert not any("teacher." in name and "matchings" not in name for name in method.state_dict())


def test_several_teachers_count_by_their_mean(teacher, other_teacher):
    """Each with mappers of its own; the logits are those of the ensemble."""
    members = {"one": teacher, "two": other_teacher}
    student, terms = make_student("bilstm"), objective({"soft_target": SoftTarget(2.0), "hint": Hint(), "cka": CKA()})
    losses = {name: loss for name, loss in terms.transfer.items() if name != "soft_target"}
    matchings = {name: Matching(losses, student, model.config, "last", member=name) for name, model in members.items()}
    both = Hints(student, RECIPE, terms, matchings).eval()
    split = with_columns(members, features=both.features, dtype=np.float32)
    assert {name for name in split.columns if "hidden" in name} == {
        *("teacher_one.hidden_states-2-mean", "teacher_one.hidden_states-3-mean"),
        *("teacher_two.hidden_states-1-mean", "teacher_two.hidden_states-2-mean"),
    }
    batch = split[list(range(16))]
    parts = both.losses(batch)
    alone = [Hints(student, RECIPE, terms, {name: matchings[name]}).eval().losses(batch) for name in members]
    for name in ("hint", "cka"):
        assert alone[0][name].item() != pytest.approx(alone[1][name].item(), rel=1e-2)
        assert parts[name].item() == pytest.approx(np.mean([part[name].item() for part in alone]), rel=1e-5)
    assert parts["soft_target"] == alone[0]["soft_target"]
    parts["hint"].backward()
    assert all(gradient_size(matching) > 0 for matching in both.matchings.values())
    assert np.isfinite(fit(both.train(), split).losses).all()


LIVE_AND_CACHED = {
    "sentence": ("dan", {"hint": Hint(), "vid": VID(), "soft_target": SoftTarget(2.0)}, {}),
    "cls": ("textcnn", {"hint": Hint()}, {"pooling": "cls"}),
    "token": ("bilstm", {"hint": Hint("token"), "pooled": Hint(layers=[[2, 3]])}, {}),
    "attention": ("transformer", {"minilm": MiniLM(), "hint": Hint("token")}, {"shared": True}),
    "pooling": ("bilstm", {"hint": Hint()}, {"mapper": AttentionPooling}),
    "fitted": ("dan", {"hint": Hint()}, {"mapper": Procrustes}),
}


@pytest.mark.parametrize(("student", "losses", "options"), LIVE_AND_CACHED.values(), ids=LIVE_AND_CACHED)
def test_live_and_cached_teacher_give_the_same_curve(teacher, student, losses, options):
    def make(source):
        return make_hints(teacher, student, objective(copy.deepcopy(losses)), source, **options)

    live = make(FrozenTeacher(teacher))
    split = with_columns({"": teacher}, features=live.features)
    stored = make(cached_teacher)
    one, two = fit(live), fit(stored, split)
    np.testing.assert_allclose(one.losses, two.losses, atol=5e-3)
    assert np.isfinite(one.losses).all() and len(one.losses) == 6
    for name, value in weights(live.student).items():
        torch.testing.assert_close(value, stored.student.state_dict()[name], atol=2e-2, rtol=0)


@pytest.mark.parametrize("rate", [None, 0.03, 0.0])
def test_mappers_learn_at_their_own_rate_and_stay_out_of_the_student(teacher, tmp_path, rate):
    method = make_hints(teacher, terms=objective({"vid": VID(), "hint": Hint()}), mapper_learning_rate=rate)
    matching = method.matchings["teacher"]
    before = weights(matching)
    curve = fit(method, path=tmp_path)
    assert rates_of(curve.trainer, matching) == {1e-2 if rate is None else rate}
    assert rates_of(curve.trainer, method.student) == {1e-2}
    trained = {id(p) for group in curve.trainer.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in method.parameters()}
    flat = {
        id(p)
        for group in curve.trainer.optimizers[0].param_groups
        if not group["weight_decay"]
        for p in group["params"]
    }
    assert {id(p) for p in method.parameters() if p.ndim < 2} == flat
    for name, value in weights(matching).items():
        assert torch.equal(value, before[name]) == (rate == 0), name
    state = checkpoint_of(tmp_path)
    assert {f"matchings.teacher.{name}" for name in before} < set(state)
    assert {"mappers.1-sentence.linear.weight", "variances.1-sentence"} < set(before)
    assert_same(weights(matching), {name: state[f"matchings.teacher.{name}"] for name in before})
    method.student.save_pretrained(tmp_path / "model")
    saved = BiLSTM.from_pretrained(tmp_path / "model")
    assert_same(weights(method.student), weights(saved))


def test_attention_leaves_nothing_in_the_saved_student(teacher, tmp_path):
    method = make_hints(teacher, "transformer", objective({"minilm": MiniLM()}))
    assert not list(method.matchings.parameters())
    fit(method)
    method.student.save_pretrained(tmp_path)
    assert recording.IMPLEMENTATION not in (tmp_path / "config.json").read_text()
    saved = type(method.student).from_pretrained(tmp_path)
    inputs = inputs_of(make_split()[[0, 1, 2]])
    with torch.no_grad():
        torch.testing.assert_close(saved(**inputs).logits, method.student.eval()(**inputs).logits)


def test_a_mapper_is_fitted_before_the_first_step_on_the_untrained_student(teacher, caplog):
    method = make_hints(teacher, mapper=Procrustes, layers=[[2, 3]])
    batch = inputs_of(make_split()[list(range(ROWS))])
    own = vectors(states_of(method.student.eval(), batch)[2], batch, "mean")
    other = vectors(states_of(teacher, batch)[3], batch, "mean")
    with caplog.at_level(logging.INFO, "kd"):
        fit(method)
    assert "mapper: fitting" in caplog.text
    assert method.student.training, "though it was asked without dropout"
    found, expected = method.matchings["teacher"].mappers["2-sentence"], Procrustes(16, 16).fit(own, other)
    torch.testing.assert_close(found.origin, expected.origin)
    torch.testing.assert_close(found.weight @ found.weight.T, torch.eye(16), atol=1e-5, rtol=0)
    moved = (torch.from_numpy(own).float() - expected.origin, found.weight, expected.weight)
    torch.testing.assert_close(moved[0] @ moved[1].T, moved[0] @ moved[2].T, atol=1e-3, rtol=0)


def test_hints_draw_the_student_to_the_teacher(teacher):
    method = make_hints(teacher, terms=objective({"hint": Hint()}, alpha=1.0))
    values = fit(method, epochs=8).losses
    assert len(values) == 24 and values[-1] < 0.7 * values[0]


def test_what_cannot_be_is_refused(teacher):
    student = make_student("dan")
    with pytest.raises(KDError, match="method=hints needs a transfer term, got none"):
        Hints(student, RECIPE, objective({}), {})
    only = objective({"soft_target": SoftTarget(2.0)})
    with pytest.raises(KDError, match="needs a loss on features, found only soft_target; add one"):
        Hints(student, RECIPE, only, {"teacher": Matching({}, student, teacher.config)})


@pytest.mark.parametrize("mapper", [AttentionPooling, PCA])
def test_mixed_precision_accumulation_and_clipping_train(teacher, mapper):
    terms = objective({"vid": VID(), "hint": Hint(), "soft_target": SoftTarget(2.0)}, weighting=GradNorm)
    method = make_hints(teacher, "dan", terms, mapper=mapper)
    before = weights(method.student)
    curve = fit(method, precision="bf16-mixed", gradient_clip_val=0.1, accumulate_grad_batches=2)
    assert np.isfinite(curve.losses).all()
    for name, value in weights(method.student).items():
        assert value.dtype == torch.float32 and not torch.equal(value, before[name]), name


STAGED = {"logit_mse": LogitMSE(), "hint": Hint()}


@pytest.mark.parametrize("keep", [False, True])
def test_features_first_then_the_task(teacher, keep):
    method = make_hints(teacher, terms=objective(copy.deepcopy(STAGED)), feature_epochs=1, keep_features=keep)
    head = method.student.head.weight.clone()
    heads = []

    class Look(lightning.Callback):
        def on_train_epoch_end(self, trainer, method):
            heads.append(method.student.head.weight.clone())

    record = Record("student.head", "student.lstm", "matchings")
    fit(method, epochs=3, callbacks=[record, Look()], log_every_n_steps=1)
    rows = record.recorder.rows
    assert [row["stage"] for row in rows] == [1] * 3 + [2] * 6
    assert torch.equal(heads[0], head) and not torch.equal(heads[1], head)
    task = {"loss/total", "loss/label", "loss/logit_mse", *(["loss/hint"] if keep else [])}
    for row, gradients in zip(rows, record.gradients, strict=True):
        terms = {name for name in row if name.startswith("loss/")}
        first = row["stage"] == 1
        assert terms == ({"loss/total", "loss/label", "loss/hint"} if first else task)
        assert gradients["student.lstm"] > 0
        assert bool(gradients["student.head"]) != first
        assert bool(gradients["matchings"]) == (first or keep)
        assert row["alpha"] == (1.0 if first else 0.5)
        expected = row["loss/hint"] if first else 0.5 * row["loss/label"] + 0.5 * row["loss/logit_mse"]
        expected += 0.5 * row["loss/hint"] if keep and not first else 0
        assert row["loss/total"] == pytest.approx(expected, rel=1e-5)


def test_the_best_epoch_is_one_of_the_task(teacher, tmp_path):
    """In the feature stage the head is untrained, however well it guesses; a tie would keep the earlier epoch."""

    class Guess(lightning.Callback):
        def on_validation_epoch_end(self, trainer, method):
            method.log("guess", 1.0 if trainer.current_epoch == 0 else 0.6)

    options = {"filename": "best", "mode": "max", "enable_version_counter": False}
    best = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, monitor="guess", **options)
    stop = lightning.pytorch.callbacks.EarlyStopping("guess", mode="max", patience=2)
    fit(make_hints(teacher, feature_epochs=1), epochs=3, path=tmp_path, callbacks=[Guess(), best, stop])
    assert torch.load(best.best_model_path, weights_only=True)["epoch"] == 1
    assert [path.name for path in tmp_path.glob("best*")] == ["best.ckpt"]
    assert stop.best_score.item() == pytest.approx(0.6)


def test_without_a_logit_loss_the_task_is_the_labels(teacher):
    live, calls = FrozenTeacher(teacher), []

    def source(batch, features):
        calls.append(len(features))
        return live(batch, features)

    terms = objective({"hint": Hint(weight=0.2)}, alpha=0.9)
    record = recorded(make_hints(teacher, terms=terms, source=source, feature_epochs=1))
    first, second = record.recorder.rows[0], record.recorder.rows[-1]
    assert first["loss/total"] == pytest.approx(0.2 * first["loss/hint"])
    assert second["loss/total"] == second["loss/label"] and second["stage"] == 2
    assert len(calls) == 3


def test_one_stage_has_no_number(teacher):
    rows = recorded(make_hints(teacher)).recorder.rows
    assert not any("stage" in row for row in rows) and all("loss/soft_target" in row for row in rows)


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_feature_stage_that_leaves_nothing_is_refused(teacher, epochs):
    with pytest.raises(
        KDError, match=f"feature_epochs={epochs} takes {3 * epochs} steps and leaves none of the run's 6 for the task"
    ):
        fit(make_hints(teacher, feature_epochs=epochs), epochs=2)


RESUMED = {
    "random layers, variances, own rate": (
        {"hint": Hint(), "vid": VID(), "soft_target": SoftTarget(2.0)},
        {"calibrate": True},
        {"layers": "random", "mapper_learning_rate": 0.03},
    ),
    "fitted mapper, GradNorm": (
        {"hint": Hint(), "soft_target": SoftTarget(2.0)},
        {"weighting": GradNorm},
        {"mapper": Procrustes, "keep_features": True},
    ),
    "reduced teacher, PCGrad": (
        {"vid": VID(), "hint": Hint(), "logit_mse": LogitMSE()},
        {"weighting": PCGrad},
        {"student": "dan", "mapper": PCA},
    ),
    "attention, learned balance": (
        {"minilm": MiniLM(), "soft_target": SoftTarget(2.0)},
        {"weighting": UncertaintyWeighting, "temperature": LearnedTemperature()},
        {"student": "transformer", "keep_features": True},
    ),
}


@pytest.mark.parametrize(("losses", "settings", "options"), RESUMED.values(), ids=RESUMED)
def test_resumed_in_either_stage_equals_uninterrupted(teacher, tmp_path, losses, settings, options):
    def make():
        terms = objective(copy.deepcopy(losses), **copy.deepcopy(settings))
        return make_hints(teacher, terms=terms, source=cached_teacher, feature_epochs=2, **options)

    assert_resumes(make, tmp_path, with_columns({"": teacher}, features=make().features))


def test_a_resumed_mapper_is_not_fitted_again(teacher, tmp_path, caplog):
    def make():
        return make_hints(teacher, mapper=Procrustes)

    keep = ModelCheckpoint(tmp_path, save_last=True)
    with pytest.raises(RuntimeError, match="killed"):
        fit(make(), path=tmp_path, callbacks=[keep, StopAt(1)])
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    resumed = make()
    caplog.clear()  # another test may have left the level at INFO
    with caplog.at_level(logging.INFO, "kd"):
        fit(resumed, checkpoint=tmp_path / "last.ckpt")
    assert "mapper: fitting" not in caplog.text
    for name, value in weights(resumed.matchings).items():
        assert torch.equal(value, kept[f"matchings.{name}"])


class Rates(lightning.Callback):
    """The learning rate of the head at each step."""

    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, method, batch, batch_index):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_each_stage_has_the_schedule_to_itself(teacher):
    rates = Rates()
    method = make_hints(teacher, feature_epochs=1)
    fit(method, epochs=3, callbacks=[rates])
    first, second = method.feature_steps, method.total_steps - method.feature_steps
    expected = [
        step / max(1, round(0.1 * n)) if step < round(0.1 * n) else (n - step) / (n - round(0.1 * n))
        for n in (first, second)
        for step in range(n)
    ]
    np.testing.assert_allclose(rates.rates, 1e-2 * np.array(expected), rtol=1e-6)


def test_a_feature_stage_must_leave_steps_for_the_task(teacher):
    method = make_hints(teacher, feature_epochs=2)
    with pytest.raises(KDError, match=r"feature_epochs=2 takes \d+ steps and leaves none of the run's 4 for the task"):
        fit(method, epochs=None, max_steps=4)


@pytest.mark.parametrize("weighting", [GradNorm, PCGrad, UncertaintyWeighting])
def test_a_weighting_of_terms_that_never_meet_is_refused(teacher, weighting):
    alone = objective({"hint": Hint()}, weighting=weighting)
    with pytest.raises(KDError, match="found 'hint' alone in the feature stage and 'label' alone in the task stage"):
        make_hints(teacher, terms=alone, feature_epochs=1)
    make_hints(teacher, terms=objective({"hint": Hint()}, weighting=weighting), feature_epochs=1, keep_features=True)
