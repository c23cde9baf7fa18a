import numpy as np
import pytest
import sklearn.metrics

from kd.measure.metrics import fidelity_metrics, label_metrics


@pytest.fixture(params=[2, 4])
def rows(request):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(301, request.param)).astype(np.float32) * 2
    teacher = (logits + generator.normal(size=logits.shape)).astype(np.float32)
    return logits, teacher, generator.integers(0, request.param, 301)


def softmax(logits):
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_label_metrics_against_scikit_learn(rows):
    logits, _, labels = rows
    found, guesses = label_metrics(logits, labels), logits.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, guesses))
    assert found["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(labels, guesses, average="macro"), abs=1e-6)
    assert found["nll"] == pytest.approx(sklearn.metrics.log_loss(labels, softmax(logits)), rel=1e-5)


def test_calibration_error_is_the_binned_gap(rows):
    logits, _, labels = rows
    confidence, hit = softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = [abs(hit[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
    assert label_metrics(logits, labels)["ece"] == pytest.approx(sum(gaps), abs=1e-5)


def test_fidelity(rows):
    logits, teacher, _ = rows
    found = fidelity_metrics(logits, teacher)
    assert found["agreement"] == pytest.approx((logits.argmax(1) == teacher.argmax(1)).mean())
    p, q = softmax(teacher), softmax(logits)
    assert found["kl"] == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-4)
    same = fidelity_metrics(logits, logits)
    assert same["agreement"] == 1 and same["kl"] == pytest.approx(0, abs=1e-6)
