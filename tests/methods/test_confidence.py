"""The weights of rows against values by hand."""

import numpy as np
import pytest
import torch

from kd.methods.confidence import Certainty, EveryRow, GoldProbability, OnlyCorrect, effective_rows

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [1 / 3, 1 / 3, 1 / 3], [0.05, 0.9, 0.05]])
LABELS = np.array([0, 1, 2, -100])
LOGITS = torch.from_numpy(np.log(PROBABILITIES) + np.array([[5.0], [-3.0], [0.0], [1.0]]))


def certainty_by_hand():
    entropy = -(PROBABILITIES * np.log(PROBABILITIES)).sum(1)
    raw = 1 - entropy / np.log(3)
    return raw / raw.mean()


CONFIDENCES = {
    "gold": (GoldProbability(), np.array([0.7, 0.3, 1 / 3, 0]) / np.mean([0.7, 0.3, 1 / 3]) + np.array([0, 0, 0, 1])),
    "certainty": (Certainty(), certainty_by_hand()),
    "correct": (OnlyCorrect(), np.array([2.0, 0.0, 0.0, 2.0])),  # the argmax of the even row is its first column
}
all_confidences = pytest.mark.parametrize("name", CONFIDENCES)


@all_confidences
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_confidence_by_hand(name, dtype):
    confidence, expected = CONFIDENCES[name]
    logits = LOGITS.to(dtype).requires_grad_()
    weights = confidence.weights(logits, torch.from_numpy(LABELS))
    assert weights.dtype == torch.promote_types(dtype, torch.float32)
    assert not weights.requires_grad
    assert weights.mean().item() == pytest.approx(1.0)
    rounding = {torch.float64: 1e-10, torch.float32: 1e-5}.get(dtype, 3e-2)
    assert weights.tolist() == pytest.approx(expected.tolist(), rel=rounding, abs=rounding)


@all_confidences
def test_confidence_follows_the_rows(name):
    confidence, order = CONFIDENCES[name][0], [2, 0, 3, 1]
    labels = torch.from_numpy(LABELS)
    expected = confidence.weights(LOGITS, labels)[order]
    torch.testing.assert_close(confidence.weights(LOGITS[order], labels[order]), expected)


@all_confidences
def test_confidence_without_labels(name):
    weights = CONFIDENCES[name][0].weights(LOGITS, torch.full((4,), -100))
    expected = certainty_by_hand().tolist() if name == "certainty" else [1.0] * 4
    assert weights.tolist() == pytest.approx(expected)


@all_confidences
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_teacher_of_no_worth_gives_zeros_and_no_nan(name, dtype):
    """Every row wrong with probability 1, or, for certainty, without any opinion."""
    logits = torch.tensor([[0.0, 500.0], [500.0, 0.0]], dtype=dtype) * (name != "certainty")
    assert CONFIDENCES[name][0].weights(logits, torch.tensor([0, 1])).tolist() == [0, 0]


def test_certainty_with_one_class_and_with_one_hot_rows():
    assert Certainty().weights(torch.randn(3, 1), torch.zeros(3, dtype=int)).tolist() == [1, 1, 1]
    assert Certainty().weights(torch.tensor([[900.0, 0], [0, 900.0]]), torch.tensor([0, 0])).tolist() == [1, 1]


def test_every_row_weighs_nothing():
    assert EveryRow().weights(LOGITS, torch.from_numpy(LABELS)) is None


@pytest.mark.parametrize(
    ("weights", "share"), [([1.0, 1.0, 1.0], 1), ([3.0, 0.0, 0.0], 1 / 3), ([2.0, 1.0, 0.0], 9 / 15), ([0.0, 0.0], 0)]
)
def test_effective_rows_by_hand(weights, share):
    assert effective_rows(torch.tensor(weights)).item() == pytest.approx(share)
