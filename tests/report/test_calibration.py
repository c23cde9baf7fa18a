"""Calibration against scipy, scikit-learn and counting by hand."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from kd.report.calibration import calibration, fit_temperature, reliability


@pytest.fixture
def scored():
    generator = np.random.default_rng(4)
    labels = generator.integers(2, size=1000)
    margin = (2 * labels - 1) * 1.2 + 1.5 * generator.normal(size=1000)
    return np.stack([-2 * margin, 2 * margin], axis=1), labels  # over-confident


def test_nll_and_brier_are_scikit_learns(scored):
    logits, labels = scored
    probabilities = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    found = calibration(logits, labels)
    assert found.nll == pytest.approx(log_loss(labels, probabilities))
    assert found.brier == pytest.approx(2 * brier_score_loss(labels, probabilities))


def test_ece_by_hand(scored):
    """Bins of binary confidences lie in [1/2, 1]."""
    logits, labels = scored
    probabilities = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    confidence, right = np.maximum(probabilities, 1 - probabilities), (probabilities > 0.5) == labels
    expected = 0.0
    for place in range(15):
        low, high = 0.5 + place / 30, 0.5 + (place + 1) / 30
        inside = (confidence >= low) & ((confidence < high) | (place == 14))
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration(logits, labels).ece == pytest.approx(expected)
    assert reliability(logits, labels)[:, 2].sum() == 1000


def test_fitted_temperature_is_scipys_minimum(scored):
    logits, labels = scored
    expected = minimize_scalar(lambda t: calibration(logits, labels, t).nll, bounds=(0.05, 20), method="bounded")
    assert fit_temperature(logits, labels) == pytest.approx(expected.x, abs=1e-3)
    assert calibration(logits, labels, expected.x).nll < calibration(logits, labels).nll


def test_temperature_stays_in_its_bounds():
    sure = np.array([[-1.0, 1.0], [1.0, -1.0]])
    assert fit_temperature(sure, np.array([1, 0])) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(sure, np.array([0, 1])) == pytest.approx(20, rel=0.01)


def test_three_labels():
    """Confidences of three labels lie in [1/3, 1]; the figures against scikit-learn."""
    generator = np.random.default_rng(9)
    labels = generator.integers(3, size=500)
    logits = 2 * generator.normal(size=(500, 3)) + 1.5 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = calibration(logits, labels)
    assert found.nll == pytest.approx(log_loss(labels, probabilities))
    assert found.brier == pytest.approx(((probabilities - np.eye(3)[labels]) ** 2).sum(axis=1).mean())
    bins = reliability(logits, labels)
    full = bins[bins[:, 2] > 0]
    edges = 1 / 3 + np.arange(16) * (2 / 3) / 15
    inside = [edges[place] <= mean <= edges[place + 1] for place, (mean, _, count) in enumerate(bins) if count]
    assert all(inside) and (full[:, 1] <= 1).all() and full[:, 2].sum() == 500
