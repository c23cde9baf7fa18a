"""The objective: alone, with terms of known values, and in a fit with hints, where its balance moves."""

import copy
import logging
import math
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from kd.contract import Answer, Loss
from kd.errors import KDError
from kd.losses.annealing import Annealing
from kd.losses.hint import Hint
from kd.losses.logits import LogitMSE, SoftTarget
from kd.methods import schedules
from kd.methods.confidence import GoldProbability, OnlyCorrect
from kd.methods.hints import Hints
from kd.methods.objective import Objective
from kd.methods.schedules import AnnealedTemperature, Constant, LearnedTemperature, Linear, Switch, WarmUp
from kd.methods.weighting import GradNorm, PCGrad, UncertaintyWeighting
from tests.methods.test_base import fit, make_split
from tests.methods.tools import Record, StopAt, checkpoint_of, make_hints, objective, rates_of, recorded


class Fixed(Loss):
    """A term of one value."""

    def __init__(self, value: float, weight: float = 1.0):
        super().__init__(weight)
        self.value = value

    def term(self, student, teacher, batch):
        return student.logits.sum() * 0 + self.value


def evaluated(objective: Objective, label: float = 5.0, progress: float = 0.0, **options):
    sides = Answer(logits=torch.zeros(3, 2)), Answer(logits=torch.zeros(3, 2))
    batch = {"labels": torch.zeros(3, dtype=torch.long)}
    answers = {name: [sides] for name in objective.transfer}
    return objective(torch.tensor(label), answers, batch, progress, list, **options)


def total(*arguments, **options) -> float:
    return evaluated(*arguments, **options)[0]["total"].item()


def test_alpha_and_the_label_share_may_be_given():
    objective = Objective({"a": Fixed(2.0, 0.5), "b": Fixed(3.0, 2.0)}, Linear(0.3, 0.1))
    assert total(objective) == pytest.approx(0.7 * 5 + 0.3 * (0.5 * 2 + 2 * 3))
    assert total(objective, progress=1.0) == pytest.approx(0.9 * 5 + 0.1 * 7)
    assert total(objective, alpha=0.5) == pytest.approx(0.5 * 5 + 0.5 * 7)
    assert total(objective, label_share=1.0) == pytest.approx(5 + 0.3 * 7)
    assert evaluated(objective)[1]["alpha"] == 0.3


def test_the_mean_over_several_teachers_counts():
    objective = Objective({"logit_mse": LogitMSE()}, Constant(1.0))
    student, near, far = (Answer(logits=torch.full((3, 2), value)) for value in (0.0, 1.0, 3.0))
    batch = {"labels": torch.zeros(3, dtype=torch.long)}
    parts, _ = objective(torch.tensor(0.0), {"logit_mse": [(student, near), (student, far)]}, batch, 0.0, list)
    assert parts["total"].item() == pytest.approx((1 + 9) / 2)


def test_calibrated_terms_start_at_their_weight_of_label_losses():
    objective = Objective({"a": Fixed(2.0, 0.5), "b": Fixed(300.0)}, Constant(0.5), calibrate=True)
    parts, curves = evaluated(objective, label=4.0)
    assert (curves["scale/a"], curves["scale/b"]) == (2.0, pytest.approx(4 / 300))
    assert parts["total"].item() == pytest.approx(0.5 * 4 + 0.5 * (0.5 * 4 + 4))
    assert total(objective, label=1.0) == pytest.approx(0.5 * 1 + 0.5 * (0.5 * 4 + 4))  # the scales stay


def test_a_temperature_of_the_objective_is_set_in_the_tempered_losses():
    losses = {"soft_target": SoftTarget(9.0), "logit_mse": LogitMSE()}
    _, curves = evaluated(Objective(losses, Constant(0.5), Linear(4.0, 2.0)), progress=0.5)
    assert curves["temperature"] == losses["soft_target"].temperature == 3.0
    assert not hasattr(losses["logit_mse"], "temperature")
    evaluated(Objective(losses, Constant(0.5), Constant(7.0)))
    assert losses["soft_target"].temperature == 3.0  # a constant one is that of the losses


@pytest.mark.parametrize(
    ("losses", "alpha", "temperature", "words"),
    [
        ({"label": Fixed(1.0)}, Constant(0.5), None, ["'label'", "rename"]),
        ({"a": Fixed(1.0)}, Linear(0.5, 1.5), None, ["alpha", "[0, 1]", "0.5 to 1.5"]),
        ({"a": Fixed(1.0, weight=0.0)}, Constant(1.0), None, ["alpha=1", "weight"]),
        ({"a": Fixed(1.0)}, Constant(0.5), Linear(4.0, 1.0), ["balance/temperature", "(a)", "soft_target"]),
        ({"a": SoftTarget()}, Constant(0.5), Linear(1.0, -1.0), ["balance/temperature", "above 0", "-1 to 1"]),
        ({"a": Annealing(3.0)}, Constant(0.5), Constant(3.0), ["'a'", "3", "balance/temperature=annealing"]),
        ({"a": Annealing()}, Constant(0.5), AnnealedTemperature(9), ["'a'", "8", "loss.a.max_temperature"]),
    ],
)
def test_settings_that_contradict_each_other_are_refused(losses, alpha, temperature, words):
    with pytest.raises(KDError) as error:
        Objective(losses, alpha, temperature)
    for word in words:
        assert word in str(error.value)


def test_a_share_of_zero_leaves_a_nan_out():
    assert total(Objective({"a": Fixed(math.nan)}, Constant(0.0)), label=1.0) == 1.0
    assert total(Objective({"a": Fixed(1.0)}, Constant(1.0)), label=math.nan) == 1.0


def hints_without_dropout(teacher, **options) -> Hints:
    """Without dropout, so that a step can be computed twice."""
    method = make_hints(teacher, terms=objective(**options))
    method.student.eval()
    return method


def test_calibrated_terms_start_at_their_share_of_the_label_loss(teacher):
    losses = {"soft_target": SoftTarget(2.0, weight=0.5), "hint": Hint(weight=2.0)}
    method, batch = (
        hints_without_dropout(teacher, losses=losses, alpha=0.4, calibrate=True),
        make_split()[list(range(16))],
    )
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
    rows = recorded(make_hints(teacher, terms=terms, feature_epochs=1)).recorder.rows
    first, task = rows[0], rows[3]
    assert first["loss/total"] == pytest.approx(first["loss/label"], rel=1e-5)
    assert task["loss/total"] == pytest.approx(task["loss/label"], rel=1e-5)
    scales = [task["loss/label"] / task["loss/soft_target"], first["loss/label"] / first["loss/hint"]]
    assert terms.scales.tolist() == pytest.approx(scales, rel=1e-4)


def test_scales_are_kept_over_a_resumption(teacher, tmp_path, caplog):
    def make():
        return make_hints(teacher, terms=objective(calibrate=True))

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
    method = hints_without_dropout(teacher, losses={"soft_target": SoftTarget(2.0), "hint": Hint(weight=weight)})
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
    hints_without_dropout(teacher, losses=mended).losses(split[list(range(16))])
    assert not caplog.records


def test_what_has_no_weight_or_is_not_trained_is_not_reported(teacher, caplog):
    batch = make_split()[list(range(16))]
    hints_without_dropout(teacher, losses={"soft_target": SoftTarget(2.0), "hint": Hint(weight=0.0)}).losses(batch)
    evaluated = hints_without_dropout(teacher, losses={"hint": Hint(weight=1e5)}, calibrate=True).eval()
    evaluated.losses(batch)
    assert not caplog.records and evaluated.objective.scales.item() == 1


def test_without_labels_terms_are_measured_against_guessing(teacher):
    method = hints_without_dropout(teacher, losses={"hint": Hint(weight=3.0)}, alpha=1.0, calibrate=True)
    parts = method.losses(make_split(unlabelled=True)[list(range(16))])
    assert parts["label"].item() == 0 and parts["total"].item() == pytest.approx(3 * np.log(2), rel=1e-4)


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
    rows = recorded(make_hints(teacher, terms=objective(losses, alpha=alpha))).recorder.rows
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
    rows = recorded(make_hints(teacher, terms=objective(temperature=schedules.Linear(4.0, 1.0)))).recorder.rows
    assert [row["temperature"] for row in rows] == pytest.approx([4 - 3 * step / 6 for step in range(6)])


def test_a_learned_temperature_moves_and_is_kept(teacher, tmp_path):
    method = make_hints(teacher, terms=objective(temperature=LearnedTemperature(start=4.0)))
    theta = method.objective.temperature.theta
    start, record = theta.item(), Record()
    curve = fit(method, path=tmp_path, epochs=4, callbacks=[record], log_every_n_steps=1)
    temperatures = [row["temperature"] for row in record.recorder.rows]
    assert temperatures[0] == pytest.approx(4.0) and len(set(temperatures)) > 5
    assert rates_of(curve.trainer, method.objective) == {1e-2}
    assert checkpoint_of(tmp_path)["objective.temperature.theta"] == theta != start
    copy.deepcopy(method)  # as weight averaging does


def test_temperatures_that_move_nothing_or_go_astray_are_refused():
    with pytest.raises(KDError, match=r"changes a temperature, and none of the losses .hint. has one"):
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


def test_confidence_needs_a_term_with_a_weight_for_each_row(caplog):
    with pytest.raises(KDError, match="weighs rows, and loss 'hint' has no weight for each; use losses on logits"):
        Objective({"hint": Hint()}, Constant(0.5), confidence=GoldProbability())
    with caplog.at_level(logging.INFO):
        objective(confidence=GoldProbability())
    assert "all rows count the same in hint" in caplog.text


def test_confidence_weighs_the_logit_terms_and_is_logged(teacher, tmp_path):
    method = make_hints(teacher, terms=objective(confidence=OnlyCorrect()))
    shares = [row["effective_rows"] for row in recorded(method, epochs=1, path=tmp_path).recorder.rows]
    assert shares and all(0 < share < 1 for share in shares), "a teacher that knows nothing is wrong on some rows"


@pytest.mark.parametrize("weighting", [GradNorm, PCGrad, UncertaintyWeighting])
def test_weightings_balance_features_and_log_their_weights(teacher, tmp_path, weighting):
    """In the feature stage there is one term, and nothing to balance."""
    method = make_hints(teacher, terms=objective(weighting=weighting), feature_epochs=1, keep_features=True)
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


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(KDError, match=r"alpha: expected .* in \[0, 1\]"):
        objective(alpha=alpha)
