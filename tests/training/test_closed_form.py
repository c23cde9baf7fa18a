"""The targets to which a student is fitted in closed form."""

from types import SimpleNamespace

import numpy as np
import torch

from kd.data.batching import EncodedSplit
from kd.methods.distillation import cached_teacher
from kd.training.closed_form import one_hot, rows, soft_targets
from tests.models.test_ngrams import ragged

LABELS = np.array([1, -100, 0])
LOGITS = np.array([[2.0, 0.0], [0.0, 4.0], [1.0, 1.0]], dtype=np.float32)


def split() -> EncodedSplit:
    return EncodedSplit(ragged([[5], [6, 7, 8], [9, 10]]), LABELS, 0, columns={"teacher_logits": LOGITS})


def test_targets_mix_teacher_and_gold():
    config, method = SimpleNamespace(alpha=0.75, temperature=2.0), SimpleNamespace(teacher=cached_teacher)
    found = soft_targets(method, split(), one_hot(LABELS, 2), config)
    teacher = torch.softmax(torch.from_numpy(LOGITS) / 2.0, 1).numpy()
    np.testing.assert_allclose(found, 0.75 * teacher + 0.25 * np.array([[0, 1], [0, 0], [1, 0]]), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), [1.0, 0.75, 1.0])  # a row without a label counts alpha


def test_rows_without_a_target_are_left_out():
    kept = rows(split(), one_hot(LABELS, 2))
    assert [row.tolist() for row in map(kept.tokens.__getitem__, range(2))] == [[5], [9, 10]]
    assert kept.targets.tolist() == [[0.0, 1.0], [1.0, 0.0]]
