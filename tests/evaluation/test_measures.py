"""Figures with their intervals, against the libraries that compute the figures alone."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import cohen_kappa_score, log_loss

from kd.evaluation.measures import against_bag, against_teacher, kappa, metrics, share
from kd.measure.metrics import fidelity_metrics, label_metrics
from kd.measure.significance import difference_interval
from kd.report.calibration import calibration_values, reliability

NUMBERS = np.random.default_rng(3)
LABELS = NUMBERS.integers(3, size=400)
TEACHER = NUMBERS.normal(size=(400, 3)).astype(np.float32) + 2 * np.eye(3, dtype=np.float32)[LABELS]
LOGITS = (TEACHER + NUMBERS.normal(size=(400, 3))).astype(np.float32)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_means_of_the_calibration_values_are_the_calibration(temperature):
    confidence, accuracy, rows = reliability(LOGITS, LABELS, temperature).T
    values = calibration_values(LOGITS, LABELS, temperature)
    assert values["ece"].mean() == pytest.approx((rows * abs(accuracy - confidence)).sum() / len(LABELS))
    probabilities = softmax(LOGITS.astype(float) / temperature, axis=1)
    assert values["nll"].mean() == pytest.approx(log_loss(LABELS, probabilities))
    assert values["brier"].mean() == pytest.approx(((probabilities - np.eye(3)[LABELS]) ** 2).sum(axis=1).mean())


def test_metrics_are_those_of_the_run_and_lie_in_their_intervals():
    found, wanted = metrics(LOGITS, LABELS, 2.0), label_metrics(LOGITS, LABELS)
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "auroc", "nll"):
        assert found[name]["value"] == pytest.approx(wanted[name], abs=1e-5)
    assert {"ece_scaled", "nll_scaled", "brier_scaled"} <= set(found)
    for one in found.values():
        assert one["low"] < one["value"] < one["high"]
    half = metrics(LOGITS[:100], LABELS[:100], None)
    assert "ece_scaled" not in half
    wide, narrow = (one["macro_f1"]["high"] - one["macro_f1"]["low"] for one in (half, found))
    assert wide == pytest.approx(2 * narrow, rel=0.25), "four times the rows, half the width"


def test_rows_of_one_class_have_no_auroc():
    found = metrics(LOGITS[LABELS == 1], LABELS[LABELS == 1], None)
    assert found["auroc"] == {"value": None, "low": None, "high": None} and found["accuracy"]["value"] > 0.5
    assert share(np.array([], dtype=bool))["value"] is None


def test_against_the_teacher():
    found, wanted = against_teacher(LOGITS, TEACHER, LABELS), fidelity_metrics(LOGITS, TEACHER)
    assert found["agreement"]["value"] == pytest.approx(wanted["agreement"])
    assert found["kl"]["value"] == pytest.approx(wanted["kl"], rel=1e-4)
    own, theirs = LOGITS.argmax(axis=1), TEACHER.argmax(axis=1)
    assert found["kappa"]["value"] == pytest.approx(cohen_kappa_score(own, theirs))
    assert found["kappa"]["low"] < found["kappa"]["value"] < found["kappa"]["high"]
    assert found["copied_rows"] == int(((own == theirs) & (theirs != LABELS)).sum())
    assert found["new_rows"] == int(((own != LABELS) & (theirs == LABELS)).sum())
    same = against_teacher(TEACHER, TEACHER, LABELS)
    assert same["loyalty"]["value"] == pytest.approx(1.0, abs=1e-6)
    assert (same["kl"]["value"], same["copied"]["value"]) == (0.0, 1.0)
    opposite = np.array([[40.0, -40.0], [40.0, -40.0]])
    assert against_teacher(opposite, -opposite, np.array([0, 0]))["loyalty"]["value"] == pytest.approx(0.0, abs=1e-6)


def test_kappa_of_constant_answers_is_not_defined():
    assert np.isnan(kappa(np.array([[5, 0], [0, 0]])))
    one_sided = np.tile([3.0, 0.0], (20, 1))
    assert against_teacher(one_sided, one_sided, np.zeros(20, int))["kappa"]["value"] is None


def test_against_the_bag_and_between_data_sets():
    found = against_bag(TEACHER, LOGITS, LABELS)
    right, theirs = TEACHER.argmax(axis=1) == LABELS, LOGITS.argmax(axis=1) == LABELS
    assert found["difference"]["value"] == pytest.approx(right.mean() - theirs.mean())
    assert (found["difference"]["low"] > 0) == (found["p_value"] < 0.05)
    low, high = difference_interval(right, theirs[:200])
    assert low < right.mean() - theirs[:200].mean() < high


def test_loyalty_of_almost_equal_answers_is_almost_one():
    logits = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    for noise in (0.0, 1e-6, 1e-5, 1e-4):
        teacher = logits + np.float32(noise) * np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32)
        found = against_teacher(logits, teacher, np.zeros(500, dtype=int))
        assert found["loyalty"]["value"] > 0.999
