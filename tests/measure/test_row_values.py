"""A metric as a mean over rows: its value, and its spread."""

import numpy as np
import pytest
import sklearn.metrics

from kd.measure.metrics import label_metrics
from kd.measure.row_values import row_values
from kd.options.sections import METRICS


def drawn(generator, rows: int, classes: int = 3):
    labels = generator.choice(classes, size=rows, p=[0.6, 0.3, 0.1] if classes == 3 else None)
    return generator.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[labels], labels


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_mean_of_the_values_is_the_metric(metric, classes):
    logits, labels = drawn(np.random.default_rng(classes), 300, classes)
    found = row_values(metric, logits.astype(np.float32), labels).mean()
    assert found == pytest.approx(label_metrics(logits, labels)[metric], abs=1e-5)


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy", "auroc"])
def test_the_spread_of_the_values_is_that_of_the_metric(metric):
    generator = np.random.default_rng(0)
    samples = [row_values(metric, *drawn(generator, 400)) for _ in range(400)]
    foretold = np.mean([values.std() for values in samples]) / 20
    assert foretold == pytest.approx(np.std([values.mean() for values in samples]), rel=0.12)


def test_ties_count_half_and_absent_classes_are_left_out():
    logits = np.array([[0.0, 0.0, -9.0], [0.0, 0.0, -9.0], [2.0, 0.0, -9.0], [0.0, 2.0, -9.0]])
    labels = np.array([0, 1, 0, 1])
    assert row_values("auroc", logits, labels).mean() == pytest.approx(
        sklearn.metrics.roc_auc_score(labels, logits[:, 1] - logits[:, 0])
    )
    assert row_values("balanced_accuracy", logits, labels).mean() == 0.75
    assert row_values("macro_f1", logits, labels).mean() == pytest.approx(
        sklearn.metrics.f1_score(labels, logits.argmax(axis=1), average="macro")
    )


def test_auroc_of_one_class_is_not_a_number():
    assert np.isnan(row_values("auroc", np.eye(2), np.zeros(2, int))).all()
