"""Feature mapping in both directions: terms by hand, stages, who is trained, kept and resumed; balance in a fit."""

import copy
import logging
from functools import partial

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger

from kd.contract import Answer
from kd.data.batching import Ragged
from kd.errors import KDError
from kd.features import attention as recording
from kd.features.feature import Feature, read
from kd.features.fitted_mapper import PCA, Procrustes
from kd.features.mapper import AttentionPooling, Linear
from kd.features.matching import Matching
from kd.losses.attention import MiniLM
from kd.losses.hint import VID, Hint
from kd.losses.logits import LogitMSE, SoftTarget
from kd.losses.relation import CKA
from kd.methods import schedules
from kd.methods.composition import Composition
from kd.methods.confidence import GoldProbability, OnlyCorrect
from kd.methods.distillation import FrozenTeacher, cached_teacher
from kd.methods.hints import Hints
from kd.methods.objective import Objective
from kd.methods.schedules import Constant, LearnedTemperature, Switch, WarmUp
from kd.methods.supervised import Supervised
from kd.methods.weighting import GradNorm, PCGrad, UncertaintyWeighting
from kd.models import BiLSTM, BiLSTMConfig, MLPConfig
from kd.models.composition import ComposedStudent, compose
from kd.options.methods import CompositionOptions, HintsOptions
from tests.features.test_matching import linear, make_bert, make_student, states_of, vectors
from tests.methods.test_base import RECIPE, ROWS, Curve, assert_same, fit, make_split, weights

BODY = {"vocab_size": 1, "embedding_size": 6, "num_labels": 2, "dropout": 0.2}


@pytest.fixture(scope="module")
def teacher():
    model = make_bert()
    recording.prepare(model)
    return model


@pytest.fixture(scope="module")
def other_teacher():
    return make_bert(width=24, layers=2, seed=7)


@torch.no_grad()
def with_columns(teachers, split=None, features=(), dtype=np.float16):
    """A split with logits of the first teacher and features of each, by member, as the cache would hold them."""
    split = split or make_split()
    batch = split[list(range(len(split)))]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    real = batch["attention_mask"].bool()
    columns = {}
    for member, model in teachers.items():
        logits, found = read(model, inputs, [feature for feature in features if feature.member == member])
        columns.setdefault("teacher_logits", logits.numpy())
        for feature, value in found.items():
            column = value if feature.pooling else value[real]
            column = column.numpy().astype(dtype)
            columns[f"teacher_{feature.column}"] = column if feature.pooling else Ragged(column, split.tokens.offsets)
    return copy.copy(split).__class__(split.tokens, split.labels, split.padding, columns=columns)


def objective(losses=None, alpha=0.5, **options) -> Objective:
    losses = {"soft_target": SoftTarget(2.0), "hint": Hint()} if losses is None else losses
    return Objective(losses, Constant(alpha) if isinstance(alpha, float) else alpha, **options)


def to_teacher(teacher, student="bilstm", terms=None, source=None, layers="last", **options) -> Hints:
    """A new student, a new mapper and a live teacher; what is no option of `HintsOptions` goes to the matching."""
    terms = objective() if terms is None else terms
    student = make_student(student)
    torch.manual_seed(3)
    known = {key: options.pop(key) for key in ("mapper", "pooling", "shared") if key in options}
    losses = {name: loss for name, loss in terms.transfer.items() if loss.needs != {"logits"}}
    matching = Matching(losses, student, teacher.config, layers, **known)
    return Hints(
        student, *RECIPE, terms, {"teacher": matching}, source or FrozenTeacher(teacher), HintsOptions(**options)
    )


class Recorder(Logger):
    """Keeps what a logger is given, step by step."""

    name = version = "recorder"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args, **options):
        pass

    def log_metrics(self, metrics, step=None):
        found = {name.removeprefix("train/"): value for name, value in metrics.items() if name.startswith("train/")}
        if found:
            self.rows.append(found)


class Record(lightning.Callback):
    """Gives the Trainer a `Recorder`, and keeps the size of the gradients of named parts at each step."""

    def __init__(self, *parts: str):
        self.parts, self.recorder, self.gradients = parts, Recorder(), []

    def setup(self, trainer, method, stage):
        trainer.loggers = [self.recorder]

    def on_before_optimizer_step(self, trainer, method, optimizer):
        self.gradients.append({part: gradient_size(method.get_submodule(part)) for part in self.parts})


def gradient_size(module) -> float | None:
    """None where nothing was computed at all."""
    found = [parameter.grad.abs().sum().item() for parameter in module.parameters() if parameter.grad is not None]
    return sum(found) if found else None


def recorded(method, split=None, parts=(), **options) -> Record:
    record = Record(*parts)
    fit(method, split, callbacks=[record], log_every_n_steps=1, **options)
    return record


class StopAt(lightning.Callback):
    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, method):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("killed")


def assert_resumes(make, tmp_path, split=None, epochs=4, stops=(1, 3), averaged=False):
    """What goes on from the checkpoint before one of these epochs repeats the unbroken run, bit for bit."""
    whole, keep = make(), ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)

    def others():
        return [EMAWeightAveraging(decay=0.5)] if averaged else []

    one = fit(whole, split, epochs=epochs, path=tmp_path, callbacks=[keep, *others()])
    for stop in stops:
        resumed = make()
        torch.manual_seed(123)  # the state of the generator at the restart must not matter
        checkpoint = tmp_path / f"epoch={stop - 1}.ckpt"
        two = fit(resumed, split, epochs=epochs, checkpoint=checkpoint, callbacks=others())
        assert len(two.losses) == len(one.losses) * (epochs - stop) // epochs
        assert one.losses[-len(two.losses) :] == two.losses
        assert_same(weights(whole), weights(resumed))


def checkpoint_of(path) -> dict[str, torch.Tensor]:
    return torch.load(next(path.rglob("*.ckpt")), weights_only=True)["state_dict"]


def inputs_of(batch):
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def rates_of(trainer, module) -> set[float]:
    """Peak learning rates of a module's parameters; fails where one is not trained."""
    rates = {id(p): group["initial_lr"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    return {rates[id(parameter)] for parameter in module.parameters()}


# --- to_teacher: the objective


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_total_is_the_documented_sum(teacher, pooling):
    terms = objective({"logit_mse": LogitMSE(weight=3.0), "hint": Hint(weight=0.5)}, alpha=0.3)
    method = to_teacher(teacher, terms=terms, layers=[[1, 2], [2, 3]], pooling=pooling).eval()
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
    alone, hinted = make_student("bilstm"), to_teacher(teacher, terms=objective(alpha=0.0))
    one = fit(Supervised(alone, *RECIPE))
    two = fit(hinted)
    assert one.losses == two.losses
    assert_same(weights(alone), weights(hinted.student))


def test_a_teacher_that_has_no_say_any_more_is_not_asked(teacher):
    live, calls = FrozenTeacher(teacher), []

    def source(batch, features):
        calls.append(len(features))
        return live(batch, features)

    fit(to_teacher(teacher, terms=objective(alpha=Switch(0.5, 0.0, until=0.5)), source=source))
    assert calls == [2] * 3, "of six steps, and for its features too"


def test_gradient_reaches_student_and_mapper_and_never_the_teacher(teacher):
    before = weights(teacher)
    method = to_teacher(teacher, terms=objective({"hint": Hint()}, alpha=1.0), layers=[[1, 3]])
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
    both = Hints(student, *RECIPE, terms, matchings).eval()
    split = with_columns(members, features=both.features, dtype=np.float32)
    assert {name for name in split.columns if "hidden" in name} == {
        *("teacher_one.hidden_states-2-mean", "teacher_one.hidden_states-3-mean"),
        *("teacher_two.hidden_states-1-mean", "teacher_two.hidden_states-2-mean"),
    }
    batch = split[list(range(16))]
    parts = both.losses(batch)
    alone = [Hints(student, *RECIPE, terms, {name: matchings[name]}).eval().losses(batch) for name in members]
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
        return to_teacher(teacher, student, objective(copy.deepcopy(losses)), source, **options)

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
    method = to_teacher(teacher, terms=objective({"vid": VID(), "hint": Hint()}), mapper_learning_rate=rate)
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
    method = to_teacher(teacher, "transformer", objective({"minilm": MiniLM()}))
    assert not list(method.matchings.parameters())
    fit(method)
    method.student.save_pretrained(tmp_path)
    assert recording.IMPLEMENTATION not in (tmp_path / "config.json").read_text()
    saved = type(method.student).from_pretrained(tmp_path)
    inputs = inputs_of(make_split()[[0, 1, 2]])
    with torch.no_grad():
        torch.testing.assert_close(saved(**inputs).logits, method.student.eval()(**inputs).logits)


def test_a_mapper_is_fitted_before_the_first_step_on_the_untrained_student(teacher, caplog):
    method = to_teacher(teacher, mapper=Procrustes, layers=[[2, 3]])
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
    method = to_teacher(teacher, terms=objective({"hint": Hint()}, alpha=1.0))
    values = fit(method, epochs=8).losses
    assert len(values) == 24 and values[-1] < 0.7 * values[0]


def test_what_cannot_be_is_refused(teacher):
    student = make_student("dan")
    with pytest.raises(KDError, match="method=hints needs a transfer term, got none"):
        Hints(student, *RECIPE, objective({}), {})
    only = objective({"soft_target": SoftTarget(2.0)})
    with pytest.raises(KDError, match="needs a loss on features, found only soft_target; add one"):
        Hints(student, *RECIPE, only, {"teacher": Matching({}, student, teacher.config)})


@pytest.mark.parametrize("mapper", [AttentionPooling, PCA])
def test_mixed_precision_accumulation_and_clipping_train(teacher, mapper):
    terms = objective({"vid": VID(), "hint": Hint(), "soft_target": SoftTarget(2.0)}, weighting=GradNorm)
    method = to_teacher(teacher, "dan", terms, mapper=mapper)
    before = weights(method.student)
    curve = fit(method, precision="bf16-mixed", gradient_clip_val=0.1, accumulate_grad_batches=2)
    assert np.isfinite(curve.losses).all()
    for name, value in weights(method.student).items():
        assert value.dtype == torch.float32 and not torch.equal(value, before[name]), name


# --- to_teacher: stages


STAGED = {"logit_mse": LogitMSE(), "hint": Hint()}


@pytest.mark.parametrize("keep", [False, True])
def test_features_first_then_the_task(teacher, keep):
    method = to_teacher(teacher, terms=objective(copy.deepcopy(STAGED)), feature_epochs=1, keep_features=keep)
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
    fit(to_teacher(teacher, feature_epochs=1), epochs=3, path=tmp_path, callbacks=[Guess(), best, stop])
    assert torch.load(best.best_model_path, weights_only=True)["epoch"] == 1
    assert [path.name for path in tmp_path.glob("best*")] == ["best.ckpt"]
    assert stop.best_score.item() == pytest.approx(0.6)


def test_without_a_logit_loss_the_task_is_the_labels(teacher):
    live, calls = FrozenTeacher(teacher), []

    def source(batch, features):
        calls.append(len(features))
        return live(batch, features)

    terms = objective({"hint": Hint(weight=0.2)}, alpha=0.9)
    record = recorded(to_teacher(teacher, terms=terms, source=source, feature_epochs=1))
    first, second = record.recorder.rows[0], record.recorder.rows[-1]
    assert first["loss/total"] == pytest.approx(0.2 * first["loss/hint"])
    assert second["loss/total"] == second["loss/label"] and second["stage"] == 2
    assert len(calls) == 3


def test_one_stage_has_no_number(teacher):
    rows = recorded(to_teacher(teacher)).recorder.rows
    assert not any("stage" in row for row in rows) and all("loss/soft_target" in row for row in rows)


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_feature_stage_that_leaves_nothing_is_refused(teacher, epochs):
    with pytest.raises(
        KDError, match=f"feature_epochs={epochs} takes {3 * epochs} steps and leaves none of the run's 6 for the task"
    ):
        fit(to_teacher(teacher, feature_epochs=epochs), epochs=2)


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
        return to_teacher(teacher, terms=terms, source=cached_teacher, feature_epochs=2, **options)

    assert_resumes(make, tmp_path, with_columns({"": teacher}, features=make().features))


def test_a_resumed_mapper_is_not_fitted_again(teacher, tmp_path, caplog):
    def make():
        return to_teacher(teacher, mapper=Procrustes)

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


# --- to_student


def composed(teacher, body="mlp", mapper=Linear, layer=2) -> ComposedStudent:
    torch.manual_seed(0)
    bodies = {"mlp": MLPConfig(**BODY, hidden_size=16), "bilstm": BiLSTMConfig(**BODY, hidden_size=4)}
    return compose(teacher, layer, mapper, bodies[body])


COLUMN = Feature("hidden_states", 2)


def to_student(teacher, body="mlp", losses=None, source=cached_teacher, mapper=Linear, **options) -> Composition:
    model = composed(teacher, body, mapper)
    return Composition(
        model,
        *RECIPE,
        objective({} if losses is None else losses),
        source,
        CompositionOptions(**options),
    )


@pytest.mark.parametrize("body", ["mlp", "bilstm"])
def test_cached_features_train_as_the_live_encoder_does(teacher, body):
    losses = {"soft_target": SoftTarget(2.0)}
    live = to_student(teacher, body, copy.deepcopy(losses), FrozenTeacher(teacher))
    whole, halves = (to_student(teacher, body, copy.deepcopy(losses)) for _ in range(2))
    calls = []
    for method in (whole, halves):
        method.student.encoder.register_forward_hook(lambda *_: calls.append(1))
    one = fit(live)
    for method, dtype, tolerance in ((whole, np.float32, 1e-5), (halves, np.float16, 5e-3)):
        split = with_columns({"": teacher}, features=[COLUMN], dtype=dtype)
        two = fit(method, split, limit_val_batches=0)
        np.testing.assert_allclose(one.losses, two.losses, atol=tolerance)
        assert method.logits(split[[0, 1]]).shape == (2, 2)
    assert not calls, "where the features are in the batch, the encoder does not run"


def test_the_encoder_is_in_no_checkpoint_and_the_weights_load_back(teacher, tmp_path):
    method = to_student(teacher, "bilstm", mapper_learning_rate=0.03)
    before, start = weights(method.student.encoder), weights(method.student)
    curve = fit(method, path=tmp_path, epochs=3)
    assert_same(before, weights(method.student.encoder))
    assert rates_of(curve.trainer, method.student.mapper) == {0.03}
    groups = curve.trainer.optimizers[0].param_groups
    trained = {id(parameter): group["initial_lr"] for group in groups for parameter in group["params"]}
    names = {name: trained.get(id(parameter)) for name, parameter in method.named_parameters()}
    assert {name for name, rate in names.items() if rate is None} == {
        *(name for name in names if name.startswith("student.encoder.")),
        "student.body.embedding.weight",
    }
    assert {rate for name, rate in names.items() if name.startswith("student.body.") and rate} == {1e-2}
    state = checkpoint_of(tmp_path)
    assert not any("encoder" in name for name in state)
    assert not torch.equal(state["student.mapper.linear.weight"], start["mapper.linear.weight"])
    again = to_student(teacher, "bilstm")
    assert not torch.equal(again.student.mapper.linear.weight, method.student.mapper.linear.weight)
    again.load_state_dict(state)
    assert_same(weights(again.student), weights(method.student))
    method.student.eval().save_pretrained(tmp_path / "model")
    saved, inputs = ComposedStudent.from_pretrained(tmp_path / "model"), inputs_of(make_split()[[3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(saved(**inputs).logits, again.student.eval()(**inputs).logits)


def test_a_foreign_checkpoint_is_refused(teacher, tmp_path):
    """Also where training would go on from it: nothing of it fits, and nothing would say so."""
    keep = ModelCheckpoint(tmp_path, save_last=True)
    fit(to_student(teacher, "bilstm"), path=tmp_path, callbacks=[keep], epochs=1)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    message = r"the checkpoint is of another model: it lacks \['student.body.* and has \['student.body.lstm.*rerun=true"
    with pytest.raises(KDError, match=message):
        to_student(teacher, "mlp").load_state_dict(state)
    with pytest.raises(KDError, match="is of another model"):
        fit(to_student(teacher, "mlp"), checkpoint=tmp_path / "last.ckpt")


@pytest.mark.parametrize(("mapper", "live", "averaged"), [(Linear, True, True), (PCA, False, False)])
def test_a_resumed_composition_equals_an_unbroken_one(teacher, tmp_path, mapper, live, averaged):
    split = with_columns({"": teacher}, features=[COLUMN])
    values = torch.from_numpy(split.columns[f"teacher_{COLUMN.column}"].values).float()

    def make():
        source = FrozenTeacher(teacher) if live else cached_teacher
        method = to_student(teacher, "bilstm", {"soft_target": SoftTarget(2.0)}, source, mapper)
        if mapper is PCA:
            method.student.mapper.fit(values)
        return method

    assert_resumes(make, tmp_path, None if live else split, stops=(2,), averaged=averaged)


def test_a_composition_without_transfer_terms_learns_from_labels(teacher):
    method = to_student(teacher)
    parts = method.losses(make_split()[[0, 1, 2]])
    assert set(parts) == {"total", "label"} and parts["total"] == parts["label"]
    parts["total"].backward()
    assert gradient_size(method.student.encoder) is None
    assert gradient_size(method.student.mapper) > 0 and gradient_size(method.student.body.head) > 0


def test_a_composition_refuses_terms_on_layers(teacher):
    with pytest.raises(
        KDError,
        match=r"'hint' compares hidden states, .* only logits; .*; use losses on logits, loss=.., or method=hints",
    ):
        to_student(teacher, losses={"hint": Hint()})


# --- balance: measured at the first step


def hinted(teacher, **options) -> Hints:
    """Without dropout, so that a step can be computed twice."""
    method = to_teacher(teacher, terms=objective(**options))
    method.student.eval()
    return method


def test_calibrated_terms_start_at_their_share_of_the_label_loss(teacher):
    losses = {"soft_target": SoftTarget(2.0, weight=0.5), "hint": Hint(weight=2.0)}
    method, batch = hinted(teacher, losses=losses, alpha=0.4, calibrate=True), make_split()[list(range(16))]
    parts = {name: part.item() for name, part in method.losses(batch).items()}
    assert parts["total"] == pytest.approx((0.6 + 0.4 * (0.5 + 2.0)) * parts["label"], rel=1e-4)
    scales = method.objective.scales.tolist()
    assert scales == pytest.approx([parts["label"] / parts["soft_target"], parts["label"] / parts["hint"]], rel=1e-4)
    other = make_split()[list(range(16, 32))]
    parts = {name: part.item() for name, part in method.losses(other).items()}
    assert method.objective.scales.tolist() == scales, "measured once"
    expected = 0.6 * parts["label"] + 0.4 * (0.5 * scales[0] * parts["soft_target"] + 2 * scales[1] * parts["hint"])
    assert parts["total"] == pytest.approx(expected, rel=1e-4)


def test_a_term_is_calibrated_when_its_stage_begins(teacher):
    terms = objective(alpha=0.5, calibrate=True)
    rows = recorded(to_teacher(teacher, terms=terms, feature_epochs=1)).recorder.rows
    first, task = rows[0], rows[3]
    assert first["loss/total"] == pytest.approx(first["loss/label"], rel=1e-5)
    assert task["loss/total"] == pytest.approx(task["loss/label"], rel=1e-5)
    scales = [task["loss/label"] / task["loss/soft_target"], first["loss/label"] / first["loss/hint"]]
    assert terms.scales.tolist() == pytest.approx(scales, rel=1e-4)


def test_scales_are_kept_over_a_resumption(teacher, tmp_path, caplog):
    def make():
        return to_teacher(teacher, terms=objective(calibrate=True))

    keep, broken, resumed = ModelCheckpoint(tmp_path, save_last=True), make(), make()
    with pytest.raises(RuntimeError, match="killed"):
        fit(broken, path=tmp_path, callbacks=[keep, StopAt(1)])
    assert (broken.objective.scales != 1).all()
    caplog.clear()
    with caplog.at_level(logging.INFO, "kd"):
        fit(resumed, checkpoint=tmp_path / "last.ckpt")
    assert torch.equal(resumed.objective.scales, broken.objective.scales)
    assert "starts at" not in caplog.text


@pytest.mark.parametrize("weight", [1e5, 1e-5])
def test_a_term_far_from_the_label_loss_is_reported_with_what_was_measured(teacher, weight, caplog):
    method = hinted(teacher, losses={"soft_target": SoftTarget(2.0), "hint": Hint(weight=weight)})
    split = make_split()
    parts = {name: part.item() for name, part in method.losses(split[list(range(16))]).items()}
    method.losses(split[list(range(16, 32))])
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    size, label = parts["hint"], parts["label"]
    assert message.startswith(
        f"loss 'hint' starts at {size:.3g} (weight {weight:g}, so {size * weight:.3g} in all), the label loss at "
        f"{label:.3g}"
    )
    assert message.endswith(f"set loss.hint.weight near {label / size:.2g}, or balance.calibrate=true")
    caplog.clear()
    mended = {"hint": Hint(weight=float(f"{label / size:.2g}"))}
    hinted(teacher, losses=mended).losses(split[list(range(16))])
    assert not caplog.records


def test_what_has_no_weight_or_is_not_trained_is_not_reported(teacher, caplog):
    batch = make_split()[list(range(16))]
    hinted(teacher, losses={"soft_target": SoftTarget(2.0), "hint": Hint(weight=0.0)}).losses(batch)
    evaluated = hinted(teacher, losses={"hint": Hint(weight=1e5)}, calibrate=True).eval()
    evaluated.losses(batch)
    assert not caplog.records and evaluated.objective.scales.item() == 1


def test_without_labels_terms_are_measured_against_guessing(teacher):
    method = hinted(teacher, losses={"hint": Hint(weight=3.0)}, alpha=1.0, calibrate=True)
    parts = method.losses(make_split(unlabelled=True)[list(range(16))])
    assert parts["label"].item() == 0 and parts["total"].item() == pytest.approx(3 * np.log(2), rel=1e-4)


# --- balance: over the steps


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (schedules.Linear(1.0, 0.4), lambda x: 1 - 0.6 * x),
        (schedules.Cosine(1.0, 0.4), lambda x: 1 - 0.6 * (1 - np.cos(np.pi * x)) / 2),
        (WarmUp(0.6, until=0.5), lambda x: min(1.2 * x, 0.6)),
        (Switch(0.9, 0.1, until=0.5), lambda x: 0.9 if x < 0.5 else 0.1),
    ],
    ids=["linear", "cosine", "warm_up", "switch"],
)
def test_alpha_moves_the_total_as_documented(teacher, alpha, expected):
    losses = {"soft_target": SoftTarget(2.0), "hint": Hint(weight=0.5)}
    rows = recorded(to_teacher(teacher, terms=objective(losses, alpha=alpha))).recorder.rows
    for step, row in enumerate(rows):
        share = expected(step / 6)
        transfer = row.get("loss/soft_target", 0) + 0.5 * row.get("loss/hint", 0)
        assert row["alpha"] == pytest.approx(share, abs=1e-6)
        assert row["loss/total"] == pytest.approx((1 - share) * row["loss/label"] + share * transfer, rel=1e-5)
    assert len(rows) == 6 and all("loss/hint" in row for row in rows[1:])


def logits_and_batch(rows=6):
    generator = torch.Generator().manual_seed(2)
    own, other = (2 * torch.randn(rows, 3, generator=generator) for _ in range(2))
    return Answer(logits=own), Answer(logits=other), {"labels": torch.tensor([0, 1, 2, 0, -100, 1])[:rows]}


def test_a_scheduled_temperature_rules_over_tempered_terms_alone(teacher):
    losses = {"soft_target": SoftTarget(9.0), "logit_mse": LogitMSE()}
    terms = Objective(losses, Constant(1.0), schedules.Linear(4.0, 1.0))
    own, other, batch = logits_and_batch()
    for progress, temperature in ((0.0, 4.0), (0.5, 2.5), (1.0, 1.0)):
        answers = {name: [(own, other)] for name in losses}
        parts, curves = terms(torch.tensor(0.0), answers, batch, progress, list)
        assert curves["temperature"] == temperature
        torch.testing.assert_close(parts["soft_target"], SoftTarget(temperature)(own, other, batch))
        torch.testing.assert_close(parts["logit_mse"], LogitMSE()(own, other, batch))
    rows = recorded(to_teacher(teacher, terms=objective(temperature=schedules.Linear(4.0, 1.0)))).recorder.rows
    assert [row["temperature"] for row in rows] == pytest.approx([4 - 3 * step / 6 for step in range(6)])


def test_a_learned_temperature_moves_and_is_kept(teacher, tmp_path):
    method = to_teacher(teacher, terms=objective(temperature=LearnedTemperature(start=4.0)))
    theta = method.objective.temperature.theta
    start, record = theta.item(), Record()
    curve = fit(method, path=tmp_path, epochs=4, callbacks=[record], log_every_n_steps=1)
    temperatures = [row["temperature"] for row in record.recorder.rows]
    assert temperatures[0] == pytest.approx(4.0) and len(set(temperatures)) > 5
    assert rates_of(curve.trainer, method.objective) == {1e-2}
    assert checkpoint_of(tmp_path)["objective.temperature.theta"] == theta != start
    copy.deepcopy(method)  # as weight averaging does


def test_temperatures_that_move_nothing_or_go_astray_are_refused():
    with pytest.raises(KDError, match=r"moves a temperature, and none of the losses .hint. has one"):
        objective({"hint": Hint()}, temperature=schedules.Linear(4.0, 1.0))
    with pytest.raises(KDError, match="expected temperatures above 0, got 0 to 4"):
        objective(temperature=schedules.Linear(4.0, 0.0))


def test_confidence_weighs_the_rows_of_the_transfer_terms():
    own, other, batch = logits_and_batch()
    losses = {"soft_target": SoftTarget(2.0)}
    terms = Objective(losses, Constant(0.5), confidence=GoldProbability())
    parts, _ = terms(torch.tensor(1.0), {"soft_target": [(own, other)]}, batch, 0.0, list)
    student, theirs = ((answer.logits.double() / 2).log_softmax(-1) for answer in (own, other))
    rows = 4 * (theirs.exp() * (theirs - student)).sum(-1).numpy()
    labels = batch["labels"].numpy()
    gold = other.logits.double().softmax(-1).numpy()[range(6), labels.clip(0)]
    share = np.where(labels >= 0, gold / gold[labels >= 0].mean(), 1.0)
    assert parts["soft_target"].item() == pytest.approx((share * rows).mean(), rel=1e-5)
    assert parts["label"] == 1


class Rates(lightning.Callback):
    """The learning rate of the head at each step."""

    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, method, batch, batch_index):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_each_stage_has_the_schedule_to_itself(teacher):
    rates = Rates()
    method = to_teacher(teacher, feature_epochs=1)
    fit(method, epochs=3, callbacks=[rates])
    first, second = method.feature_steps, method.total_steps - method.feature_steps
    expected = [
        step / max(1, round(0.1 * n)) if step < round(0.1 * n) else (n - step) / (n - round(0.1 * n))
        for n in (first, second)
        for step in range(n)
    ]
    np.testing.assert_allclose(rates.rates, 1e-2 * np.array(expected), rtol=1e-6)


def test_a_feature_stage_must_leave_steps_for_the_task(teacher):
    method = to_teacher(teacher, feature_epochs=2)
    with pytest.raises(KDError, match=r"feature_epochs=2 takes \d+ steps and leaves none of the run's 4 for the task"):
        fit(method, epochs=None, max_steps=4)


@pytest.mark.parametrize("weighting", [GradNorm, PCGrad, UncertaintyWeighting])
def test_a_weighting_of_terms_that_never_meet_is_refused(teacher, weighting):
    alone = objective({"hint": Hint()}, weighting=weighting)
    with pytest.raises(KDError, match="found 'hint' alone in the feature stage and 'label' alone in the task stage"):
        to_teacher(teacher, terms=alone, feature_epochs=1)
    to_teacher(teacher, terms=objective({"hint": Hint()}, weighting=weighting), feature_epochs=1, keep_features=True)


def test_confidence_needs_a_term_with_a_weight_for_each_row(caplog):
    with pytest.raises(KDError, match="weighs rows, and loss 'hint' has no weight for each; use losses on logits"):
        Objective({"hint": Hint()}, Constant(0.5), confidence=GoldProbability())
    with caplog.at_level(logging.INFO):
        objective(confidence=GoldProbability())
    assert "all rows count the same in hint" in caplog.text


def test_confidence_weighs_the_logit_terms_and_is_logged(teacher, tmp_path):
    method = to_teacher(teacher, terms=objective(confidence=OnlyCorrect()))
    shares = [row["effective_rows"] for row in recorded(method, epochs=1, path=tmp_path).recorder.rows]
    assert shares and all(0 < share < 1 for share in shares), "a teacher that knows nothing is wrong on some rows"


@pytest.mark.parametrize("weighting", [GradNorm, PCGrad, UncertaintyWeighting])
def test_weightings_balance_features_and_log_their_weights(teacher, tmp_path, weighting):
    """In the feature stage there is one term, and nothing to balance."""
    method = to_teacher(teacher, terms=objective(weighting=weighting), feature_epochs=1, keep_features=True)
    record, head = Record(), method.student.head.weight.clone()
    fit(method, epochs=3, path=tmp_path, callbacks=[record], log_every_n_steps=1)
    assert not torch.equal(head, method.student.head.weight)
    names = ("label", "soft_target", "hint")
    for row in record.recorder.rows:
        logged = {name for name in names if f"weight/{name}" in row}
        assert logged == ({"hint"} if row["stage"] == 1 else set(names))
        if weighting is not UncertaintyWeighting:
            share = {name: 0.5 if len(logged) == 3 else 1.0 for name in logged}
            total = sum(row[f"weight/{name}"] * share[name] * row[f"loss/{name}"] for name in logged)
            assert row["loss/total"] == pytest.approx(total, rel=1e-4)
    last = [record.recorder.rows[-1].get(f"weight/{name}") for name in names]
    state = checkpoint_of(tmp_path)
    if weighting is GradNorm:
        assert sum(last) == pytest.approx(3, rel=1e-5) and len(set(last)) == 3
        assert state["objective.weighting.weights"].tolist() == pytest.approx(last)
        assert (state["objective.weighting.first_losses"] > 0).all()
    if weighting is UncertaintyWeighting:
        assert (state["objective.weighting.log_variances"] != 0).all() and len(set(last)) == 3
    if weighting is PCGrad:
        assert min(last) >= 1


@pytest.mark.parametrize("weighting", [GradNorm, PCGrad, partial(UncertaintyWeighting, limit=2.0)])
def test_a_weighting_needs_two_terms(weighting):
    with pytest.raises(KDError, match="balances terms against each other, found only 'hint'; give alpha between"):
        objective({"hint": Hint()}, alpha=1.0, weighting=weighting)
