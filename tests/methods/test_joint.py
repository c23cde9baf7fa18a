"""Joint training of tiny models: the objective by hand, who learns from which term, and how a fit treats both sides."""

import copy
import dataclasses
import logging
from dataclasses import replace
from functools import partial

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from kd.contract import Loss
from kd.data.batching import Ragged
from kd.data.module import TextDataModule
from kd.errors import KDError
from kd.losses.decoupled import NKD
from kd.losses.hint import Hint
from kd.losses.label import LabelLoss
from kd.losses.logits import LogitMSE, SoftCrossEntropy, SoftTarget
from kd.losses.reverse import ReverseKL, SymmetricCrossEntropy
from kd.methods.base import Recipe
from kd.methods.distillation import FrozenTeacher
from kd.methods.joint import Joint
from kd.methods.learning_rate import warm_up_and_decay
from kd.methods.objective import Objective
from kd.methods.schedules import Constant, Linear, Switch
from kd.models.bow import DAN, DANConfig
from kd.options.methods import JointOptions
from tests.conftest import bare_trainer
from tests.methods.test_base import (
    RECIPE,
    ROWS,
    assert_same,
    distillation,
    fit,
    make_split,
    make_student,
    make_teacher,
    weights,
)

UNDISTURBED = partial(warm_up_and_decay, decay="constant", warm_up=0.0)
PARTNER_SCHEDULE = partial(warm_up_and_decay, decay="constant", warm_up=0.5)


def make_dan(seed: int = 0, dropout: float = 0.2) -> DAN:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 50, "embedding_size": 8, "hidden_size": 8, "num_labels": 2}
    return DAN(DANConfig(**sizes, dropout=dropout, word_dropout=dropout))


def joint(
    student=None, partners=None, losses=None, alpha=0.5, temperature=None, recipe=RECIPE, column=None, **options
) -> Joint:
    alpha = alpha if isinstance(alpha, (Linear, Switch)) else Constant(alpha)
    objective = Objective({"soft_target": SoftTarget(2.0)} if losses is None else losses, alpha, temperature)
    return Joint(
        student or make_student(),
        replace(recipe, label_loss=LabelLoss()),  # of its own, since a method sets its modes
        objective=objective,
        partners=partners or {"teacher": make_teacher()},
        options=JointOptions(**{"partner_schedule": PARTNER_SCHEDULE, "partner_learning_rate": 1e-3, **options}),
        column=column,
    )


def batch_of(rows: int = 12, unlabelled: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    batch = make_split()[list(range(rows))]
    batch["labels"][list(unlabelled)] = -100
    return batch


def every_model(method: Joint) -> dict[str, torch.nn.Module]:
    return {"student": method.student, **method.partners}


@torch.no_grad()
def answers(model, batch, prefix="") -> np.ndarray:
    """Logits without dropout, in float64."""
    was = model.training
    inputs = {name: batch[prefix + name] for name in ("input_ids", "attention_mask")}
    logits = model.eval()(**inputs).logits.double().numpy()
    model.train(was)
    return logits


def accuracy(model, split) -> float:
    return float((answers(model, split[list(range(len(split)))]).argmax(1) == split.labels).mean())


# --- the formula, written again in numpy


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    rows = np.flatnonzero(labels >= 0)
    return -log_softmax(logits)[rows, labels[rows]].mean()


def kl(teacher: np.ndarray, student: np.ndarray, temperature: float = 1.0) -> float:
    teacher, student = log_softmax(teacher / temperature), log_softmax(student / temperature)
    return temperature**2 * (np.exp(teacher) * (teacher - student)).sum(-1).mean()


@pytest.mark.parametrize("clean_targets", [True, False])
@pytest.mark.parametrize(
    ("student_weight", "partner_weight", "partner_alpha"), [(None, 1.0, 0.0), (1.5, 0.5, 0.3), (0.0, 0.0, 2.0)]
)
def test_the_total_is_the_documented_sum(student_weight, partner_weight, partner_alpha, clean_targets):
    """Two partners: each side's terms are averaged over those it learns from."""
    alpha = 0.4
    method = joint(
        partners={"teacher": make_teacher(), "peer": make_dan(1)},
        losses={"soft_target": SoftTarget(2.0, weight=0.5), "logit_mse": LogitMSE(weight=3.0)},
        alpha=alpha,
        student_weight=student_weight,
        partner_weight=partner_weight,
        partner_alpha=partner_alpha,
        clean_targets=clean_targets,
    ).eval()
    batch = batch_of(unlabelled=(1, 4, 5))
    labels = batch["labels"].numpy()
    logits = {name: answers(model, batch) for name, model in every_model(method).items()}

    def transfer(name):
        others = [other for key, other in logits.items() if key != name]
        terms = [0.5 * kl(other, logits[name], 2.0) + 3 * ((logits[name] - other) ** 2).mean() for other in others]
        return np.mean(terms)

    own_share = 1 - alpha if student_weight is None else student_weight
    expected = own_share * cross_entropy(logits["student"], labels) + alpha * transfer("student")
    for name in method.partners:
        expected += partner_weight * cross_entropy(logits[name], labels) + partner_alpha * transfer(name)
    assert method.losses(batch)["total"].item() == pytest.approx(expected, rel=1e-5)


def test_three_peers_are_deep_mutual_learning():
    """``L_k = CE_k + 1/(K-1) sum_j KL(p_j || p_k)`` (Zhang et al. 2018), and the sum of them is the total."""
    peers = {"one": make_dan(1), "two": make_dan(2)}
    whole = {"student_weight": 1.0, "partner_weight": 1.0, "partner_alpha": 1.0}
    method = joint(make_dan(0), peers, {"soft_target": SoftTarget(1.0)}, alpha=1.0, **whole).eval()
    batch = batch_of()
    labels = batch["labels"].numpy()
    logits = {name: answers(model, batch) for name, model in every_model(method).items()}
    parts = method.losses(batch)
    total = 0.0
    for name, own in logits.items():
        mutual = sum(kl(other, own) for key, other in logits.items() if key != name) / 2
        prefix = "" if name == "student" else f"{name}_"
        assert parts[f"{prefix}soft_target"].item() == pytest.approx(mutual, rel=1e-5)
        assert parts[f"{prefix}label"].item() == pytest.approx(cross_entropy(own, labels), rel=1e-5)
        total += cross_entropy(own, labels) + mutual
    assert parts["total"].item() == pytest.approx(total, rel=1e-5)


def test_the_teacher_reads_its_own_tokens_and_peers_the_students():
    split = make_split()
    others = Ragged((split.tokens.values + 7) % 50, split.tokens.offsets)
    own = dataclasses.replace(split, teacher_tokens=others)
    method = joint(partners={"teacher": make_teacher(), "peer": make_dan(1)}, partner_alpha=0.5).eval()
    batch = own[[0, 3, 7, 9]]
    labels = batch["labels"].numpy()
    parts = method.losses(batch)
    teacher, peer = answers(method.partners["teacher"], batch, "teacher_"), answers(method.partners["peer"], batch)
    assert parts["teacher_label"].item() == pytest.approx(cross_entropy(teacher, labels), rel=1e-5)
    assert parts["peer_label"].item() == pytest.approx(cross_entropy(peer, labels), rel=1e-5)
    student = answers(method.student, batch)
    expected = (kl(teacher, student, 2.0) + kl(peer, student, 2.0)) / 2
    assert parts["soft_target"].item() == pytest.approx(expected, rel=1e-5)


def test_a_student_that_rests_at_a_step_leaves_the_partners_theirs():
    """alpha is 0 for now and the labels are the partner's alone."""
    method = joint(student_weight=0.0, alpha=Linear(0.0, 1.0))
    parts = method.losses(batch_of())
    parts["total"].backward()
    assert parts["total"].item() == pytest.approx(parts["teacher_label"].item())
    assert all(not parameter.grad.any() for parameter in method.student.parameters() if parameter.grad is not None)


def test_partners_learn_at_the_scheduled_temperature_where_the_student_no_longer_asks():
    method = joint(alpha=0.0, temperature=Linear(3.0, 1.0), partner_alpha=1.0).eval()
    batch = batch_of()
    own, student = answers(method.partners["teacher"], batch), answers(method.student, batch)
    found = method.losses(batch)["teacher_soft_target"].item()
    assert found == pytest.approx(kl(student, own, 3.0), rel=1e-5)


# --- who learns from which term


def reached(method: Joint, part: torch.Tensor) -> set[str]:
    """The models in which a term has a gradient."""
    found = set()
    for name, model in every_model(method).items():
        gradients = torch.autograd.grad(part, list(model.parameters()), retain_graph=True, allow_unused=True)
        if any(gradient is not None and gradient.any() for gradient in gradients):
            found.add(name)
    return found


@pytest.mark.parametrize("clean_targets", [True, False])
@pytest.mark.parametrize("partner_alpha", [0.0, 0.7])
@pytest.mark.parametrize("loss", [SoftTarget(2.0), SymmetricCrossEntropy(2.0)], ids=lambda loss: type(loss).__name__)
def test_every_term_updates_only_the_side_that_learns_from_it(loss, partner_alpha, clean_targets):
    partners = {"teacher": make_teacher(), "peer": make_dan(1)}
    method = joint(partners=partners, losses={"term": loss}, partner_alpha=partner_alpha, clean_targets=clean_targets)
    parts = method.losses(batch_of())
    owners = {"label": "student", "term": "student", "teacher_label": "teacher", "peer_label": "peer"}
    if partner_alpha:
        owners |= {"teacher_term": "teacher", "peer_term": "peer"}
    assert {name: reached(method, part) for name, part in parts.items() if name != "total"} == {
        name: {owner} for name, owner in owners.items()
    }
    assert reached(method, parts["total"]) == {"student", "teacher", "peer"}


@pytest.mark.parametrize("loss", [SoftTarget(2.0), ReverseKL(2.0)], ids=lambda loss: type(loss).__name__)
def test_flow_lets_the_students_terms_reach_the_partners_and_not_the_other_way(loss):
    partners = {"teacher": make_teacher(), "peer": make_dan(1)}
    flow = {"flow": True, "clean_targets": False}
    method = joint(partners=partners, losses={"term": loss}, partner_alpha=0.7, **flow)
    parts = method.losses(batch_of())
    expected = {"label": {"student"}, "term": {"student", "teacher", "peer"}}
    expected |= {f"{name}_{part}": {name} for name in partners for part in ("label", "term")}
    assert {name: reached(method, part) for name, part in parts.items() if name != "total"} == expected


def test_one_way_the_partner_learns_as_if_it_were_alone():
    method = joint(partner_weight=0.5).eval()
    batch = batch_of()
    teacher = method.partners["teacher"]
    alone = copy.deepcopy(teacher)
    method.losses(batch)["total"].backward()
    logits = alone(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    (0.5 * torch.nn.functional.cross_entropy(logits, batch["labels"])).backward()
    for one, two in zip(teacher.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (SymmetricCrossEntropy(), {"partner_alpha": 1.0}),
        (SoftCrossEntropy(), {"partner_alpha": 1.0}),
        (SoftTarget(), {"flow": True, "clean_targets": False}),
    ],
    ids=["symmetric both ways", "cross-entropy both ways", "soft target with flow"],
)
def test_without_labels_two_models_meet_and_do_not_collapse(loss, options):
    """With gradient through the first argument of a cross-entropy both would become one-hot."""
    one, two = make_dan(0, dropout=0.0), make_dan(1, dropout=0.0)
    method = joint(one, {"peer": two}, {"term": loss}, alpha=1.0, student_weight=0.0, partner_weight=0.0, **options)
    batch = batch_of(8)
    for model in (one, two):  # apart, and sure of something
        model.head.weight.data *= 6
    before = [np.exp(log_softmax(answers(model, batch))) for model in (one, two)]
    assert np.abs(before[0] - before[1]).max() > 0.3
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    for _ in range(120):
        optimizer.zero_grad()
        method.losses(batch)["total"].backward()
        optimizer.step()
    after = [np.exp(log_softmax(answers(model, batch))) for model in (one, two)]
    np.testing.assert_allclose(after[0], after[1], atol=0.03)
    low, high = np.minimum(*before) - 0.1, np.maximum(*before) + 0.1
    assert all(((low < each) & (each < high)).all() for each in after), (before, after)


@pytest.mark.parametrize(
    "loss", [SymmetricCrossEntropy(), SoftCrossEntropy(2.0), NKD()], ids=lambda loss: type(loss).__name__
)
def test_flow_is_refused_where_it_would_make_both_one_hots(loss):
    with pytest.raises(
        KDError, match=r"loss 'term' changes a partner even where it agrees .* become one-hot; use soft"
    ):
        joint(losses={"term": loss}, flow=True, clean_targets=False)
    joint(losses={"term": loss}, clean_targets=False)  # without flow it is welcome


# --- what a model teaches


class Heard(Loss):
    """A distance that keeps what it compared."""

    def __init__(self):
        super().__init__()
        self.pairs = []

    def term(self, student, teacher, batch):
        self.pairs.append((student.logits.detach(), teacher.logits))
        return (student.logits - teacher.logits).square().mean()


@pytest.mark.parametrize("clean_targets", [True, False])
def test_clean_targets_are_those_of_evaluation_mode(clean_targets):
    teacher = make_teacher()
    for module in teacher.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    heard = Heard()
    method = joint(make_dan(), {"teacher": teacher}, {"heard": heard}, partner_alpha=0.5, clean_targets=clean_targets)
    batch = batch_of()
    clean = {name: torch.tensor(answers(model, batch)).float() for name, model in every_model(method).items()}
    method.losses(batch)
    (student_pass, from_teacher), (teacher_pass, from_student) = heard.pairs
    assert (student_pass - clean["student"]).abs().max() > 1e-3, "the training passes have dropout"
    assert (teacher_pass - clean["teacher"]).abs().max() > 1e-3
    expected = (clean["teacher"], clean["student"]) if clean_targets else (teacher_pass, student_pass)
    torch.testing.assert_close((from_teacher, from_student), expected)
    assert not from_teacher.requires_grad and not from_student.requires_grad
    assert all(module.training for module in method.modules())


class Modes(lightning.Callback):
    """That dropout is on when a step begins and after it."""

    def __init__(self):
        self.looked = 0

    def on_train_batch_start(self, trainer, method, batch, batch_index):
        assert all(module.training for model in every_model(method).values() for module in model.modules())
        self.looked += 1

    def on_train_batch_end(self, trainer, method, outputs, batch, batch_index):
        self.on_train_batch_start(trainer, method, batch, batch_index)


def test_dropout_is_on_in_every_step_of_a_fit():
    modes = Modes()
    fit(joint(partner_alpha=0.5, partners={"teacher": make_teacher().eval()}), callbacks=[modes])
    assert modes.looked == 12


# --- two optimisations in one


class Rates(lightning.Callback):
    """The parameter groups as each step finds them."""

    def __init__(self):
        self.steps = []

    def on_train_batch_start(self, trainer, method, batch, batch_index):
        groups = trainer.optimizers[0].param_groups
        self.steps.append([(bool(group.get("teacher")), group["lr"], group["weight_decay"]) for group in groups])


def test_each_side_has_its_own_learning_rate_decay_schedule_and_warm_up():
    rates = Rates()
    method = joint(
        partners={"teacher": make_teacher(), "peer": make_dan(1)}, partner_weight_decay=0.02, partner_learning_rate=1e-4
    )
    curve = fit(method, callbacks=[rates])
    own = 1e-2 * np.array([0, 1, 0.8, 0.6, 0.4, 0.2])  # linear, one of six steps of warm-up
    teachers = 1e-4 * np.array([0, 1 / 3, 2 / 3, 1, 1, 1])  # constant after three
    peers = 1e-4 * own / 1e-2  # a peer follows the student's schedule
    for step, groups in enumerate(rates.steps):
        expected = [(False, own[step], 0.1), (False, own[step], 0.0)]
        expected += [(True, teachers[step], 0.02), (True, teachers[step], 0.0)]
        expected += [(False, peers[step], 0.02), (False, peers[step], 0.0)]
        np.testing.assert_allclose(groups, expected, rtol=1e-6)
    assert len(rates.steps) == 6
    groups = curve.trainer.optimizers[0].param_groups
    student, others = ({id(p) for g in part for p in g["params"]} for part in (groups[:2], groups[2:]))
    assert student == {id(p) for p in method.student.parameters()}
    assert others == {id(p) for p in method.partners.parameters()}


@pytest.mark.parametrize(
    ("options", "moves"),
    [
        ({"partner_weight": 0.0}, False),
        ({"partner_weight": 0.0, "partner_alpha": 0.5}, True),
        ({"partner_weight": 0.0, "flow": True, "clean_targets": False}, True),
        ({}, True),
    ],
    ids=["nothing", "transfer", "flow", "labels"],
)
def test_partners_are_frozen_where_nothing_trains_them(options, moves):
    method = joint(**options)
    teacher = method.partners["teacher"]
    before = weights(method)
    fit(method, epochs=1)
    after = weights(method)
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("partners.")) == moves
    assert all(parameter.requires_grad == moves for parameter in teacher.parameters())
    assert len(method.parameter_groups()) == (4 if moves else 2)
    assert not torch.equal(before["student.head.weight"], after["student.head.weight"])


class Gradients(lightning.Callback):
    """The norm of all gradients together, as the optimizer used them."""

    def __init__(self):
        self.norms = []

    def on_train_batch_end(self, trainer, method, outputs, batch, batch_index):
        assert all(parameter.grad is not None for parameter in method.parameters())
        sides = [[p.grad for p in model.parameters()] for model in (method.student, method.partners)]
        self.norms.append([torch.nn.utils.get_total_norm(side).item() for side in sides])


def test_clipping_bounds_the_joint_norm():
    free, clipped = Gradients(), Gradients()
    fit(joint(), callbacks=[free], epochs=1)
    fit(joint(), callbacks=[clipped], epochs=1, gradient_clip_val=0.1)
    assert min(np.hypot(*norms) for norms in free.norms) > 0.1
    np.testing.assert_allclose([np.hypot(*norms) for norms in clipped.norms], 0.1, rtol=1e-3)
    shares = [np.divide(*norms) for norms in (free.norms[0], clipped.norms[0])]
    assert shares[0] == pytest.approx(shares[1], rel=1e-3), "one factor for both"
    assert np.min(clipped.norms) > 0


@pytest.mark.parametrize("options", [{"partner_alpha": 0.5}, {"flow": True, "clean_targets": False}], ids=str)
def test_mixed_precision_with_clipping_trains_all_of_both(options):
    """Under autocast a pass without gradient must not spoil the weights' casts for the training pass."""
    method = joint(**options)
    before = weights(method)
    gradients = Gradients()
    curve = fit(method, precision="bf16-mixed", gradient_clip_val=1.0, callbacks=[gradients])
    assert np.isfinite(curve.losses).all() and np.isfinite(gradients.norms).all()
    after = weights(method)
    for name, parameter in method.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.ndim == 1 or not torch.equal(before[name], after[name]), name


def test_accumulated_gradients_are_the_mean_for_both():
    recipe = Recipe(LabelLoss(), partial(torch.optim.SGD, lr=0.5), UNDISTURBED)
    models = make_dan(0, dropout=0.0), make_dan(1, dropout=0.0)
    other = {"recipe": recipe, "partner_schedule": UNDISTURBED, "partner_learning_rate": 0.25, "partner_alpha": 0.5}
    method = joint(models[0], {"peer": models[1]}, partner_weight_decay=0.0, **other)
    by_hand = copy.deepcopy(method)
    fit(method, epochs=1, accumulate_grad_batches=3)
    sampler = TextDataModule(make_split(), make_split(), batch_size=16).train_sampler()
    for rows in sampler:
        (by_hand.losses(make_split()[rows])["total"] / 3).backward()
    with torch.no_grad():
        for model, rate in ((by_hand.student, 0.5), (by_hand.partners, 0.25)):
            for parameter in model.parameters():
                parameter -= rate * parameter.grad
    assert ROWS == 3 * 16
    for (name, one), two in zip(method.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, two, msg=name)


# --- what is said of the partners


def train(method: Joint, split, validation, **options) -> lightning.Trainer:
    """`fit` with a validation split of its own."""
    trainer = bare_trainer(**options)
    trainer.fit(method, TextDataModule(split, validation, batch_size=16))
    return trainer


@pytest.mark.parametrize(("wrong", "warns"), [(True, True), (False, False)], ids=["ruined", "well"])
def test_a_teacher_that_is_dragged_down_is_reported(wrong, warns, caplog):
    teacher = make_teacher()
    split = make_split()
    right = answers(teacher, split[list(range(ROWS))]).argmax(1)
    known = dataclasses.replace(split, labels=right)
    taught = dataclasses.replace(split, labels=1 - right if wrong else right)
    rate = 0.1 if wrong else 1e-5
    method = joint(make_dan(), {"teacher": teacher}, partner_learning_rate=rate, partner_schedule=UNDISTURBED)
    with caplog.at_level(logging.WARNING, "kd.methods.joint"):
        trainer = train(method, taught, known, max_epochs=2)
    after = accuracy(teacher, known)
    assert method.accuracy_before.tolist() == [1.0] and (after < 1) == wrong
    assert trainer.callback_metrics["val/teacher_accuracy"].item() == pytest.approx(after)
    assert trainer.callback_metrics["val/accuracy"].item() == pytest.approx(accuracy(method.student, known))
    said = [record.getMessage() for record in caplog.records if record.name == "kd.methods.joint"]
    assert bool(said) == warns, said
    if warns:
        assert f"makes the teacher worse: validation accuracy {after:.3f}, and 1.000 before; lower" in said[-1]


def test_every_partner_is_followed():
    partners = {"one": make_dan(1), "two": make_dan(5)}
    validation = make_split()
    before = [accuracy(model, validation) for model in partners.values()]
    method = joint(make_dan(), partners, partner_learning_rate=0.03, partner_schedule=UNDISTURBED)
    trainer = train(method, validation, validation, max_epochs=20)
    assert before != [accuracy(model, validation) for model in partners.values()], "else nothing is tested"
    torch.testing.assert_close(method.accuracy_before, torch.tensor(before))
    for name, model in partners.items():
        assert trainer.callback_metrics[f"val/{name}_accuracy"].item() == pytest.approx(accuracy(model, validation))


# --- resumption


class StopAfterTwo(lightning.Callback):
    def on_train_epoch_start(self, trainer, method):
        if trainer.current_epoch == 2:
            raise RuntimeError("killed")


def test_resumed_equals_unbroken(tmp_path):
    """The temperature goes on for the partner when alpha is 0, and the teacher's first accuracy is not taken anew."""

    def both_ways() -> Joint:
        schedules = {"alpha": Switch(0.5, 0.0, until=0.5), "temperature": Linear(4.0, 1.0)}
        rates = {"partner_schedule": UNDISTURBED, "partner_learning_rate": 0.03}
        return joint(make_dan(), partner_alpha=0.5, **rates, **schedules)

    whole, broken, resumed = both_ways(), both_ways(), both_ways()
    before = accuracy(whole.partners["teacher"], make_split())
    one = fit(whole, epochs=4)
    keep = ModelCheckpoint(tmp_path, save_last=True)
    with pytest.raises(RuntimeError, match="killed"):
        fit(broken, epochs=4, path=tmp_path, callbacks=[keep, StopAfterTwo()])
    assert accuracy(broken.partners["teacher"], make_split()) != pytest.approx(before), "else nothing is tested"
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.normal_()
    torch.manual_seed(123)
    two = fit(resumed, epochs=4, checkpoint=tmp_path / "last.ckpt")
    assert one.losses[6:] == two.losses
    assert_same(weights(whole), weights(resumed))
    assert resumed.accuracy_before.tolist() == pytest.approx([before])


def test_a_partner_that_rests_is_a_frozen_teacher():
    """Joint training where only the student learns is distillation, step by step."""
    distilled = fit(distillation(make_student(), FrozenTeacher(make_teacher())))
    partners = {"teacher": make_teacher()}
    for module in partners["teacher"].modules():  # its training pass would draw from the student's generator
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    together = fit(joint(partners=partners, partner_weight=0.0))
    np.testing.assert_allclose(distilled.losses, together.losses, rtol=1e-6)


# --- refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flow": True}, r"flow=true needs the training pass of the teacher; set method.clean_targets=false"),
        ({"losses": {"hint": Hint()}}, r"loss 'hint' compares hidden states, and method=joint only logits"),
        ({"losses": {}}, r"method=joint needs a transfer term, got none; use loss=\[soft_target\]"),
        ({"student_weight": 0.0, "alpha": 0.0}, r"student_weight=0 and alpha=0 leave the student nothing to learn"),
    ],
    ids=["flow", "features", "no loss", "idle"],
)
def test_what_cannot_work_is_refused(options, words):
    with pytest.raises(KDError, match=words):
        joint(**options)


def test_a_peer_learns_as_the_student_does():
    """Without being told anything, as method.copies=1 makes it: from the labels, from the student, at its rate."""
    peer = make_dan(1)
    method = Joint(
        make_dan(),
        RECIPE,
        objective=Objective({"soft_target": SoftTarget(2.0)}, Constant(0.3)),
        partners={"peer": peer},
        options=JointOptions(PARTNER_SCHEDULE),
    )
    parts = method.losses(batch_of())
    expected = sum(
        0.7 * parts[label] + 0.3 * parts[term]
        for label, term in (("label", "soft_target"), ("peer_label", "peer_soft_target"))
    )
    torch.testing.assert_close(parts["total"], expected)
    rates, start = Rates(), peer.head.weight.detach().clone()
    fit(method, callbacks=[rates])
    assert all(groups[0][1] == groups[2][1] for groups in rates.steps)
    assert (peer.head.weight - start).norm() > 0.05, "as far as a student moves, not as a fine-tuned teacher"


def test_calibration_of_peers_is_refused():
    objective = Objective({"soft_target": SoftTarget(2.0)}, Constant(0.3), calibrate=True)
    with pytest.raises(KDError, match="where peers agree"):
        Joint(make_dan(), RECIPE, objective, {"peer": make_dan(1)}, JointOptions(PARTNER_SCHEDULE))
