"""A supervised run trains on the rows with a gold label."""

import numpy as np
from datasets import Dataset

from kd.data.batching import labels_of
from kd.runtime import fork_memory


def without_labels(assembly, rows: slice):
    """Take the gold labels of some training rows out."""
    splits = assembly.splits
    labels = labels_of(splits.train).copy()
    labels[rows] = -100
    train = Dataset.from_dict({**splits.train.to_dict(), "label": labels})
    assembly.splits = type(splits)(train, splits.validation, splits.test, splits.label_names, splits.counts)
    return assembly


def test_runs_of_a_sweep_share_encoded_rows_of_the_same_content_alone(assembled, monkeypatch):
    monkeypatch.setattr(fork_memory, "_KEPT", {})
    with fork_memory.keeping():
        first, second, third = (
            without_labels(assembled("method=supervised"), rows).encoded("train")
            for rows in (slice(5), slice(5, 10), slice(5))
        )
    assert len(first) == len(second) and first is third
    assert not np.array_equal(first.tokens.values, second.tokens.values)


def test_rows_without_a_gold_label_are_left_out_of_training_alone(assembled):
    assembly = without_labels(assembled("method=supervised"), slice(5))
    assert len(assembly.train()) == len(assembly.splits.train) - 5 and np.all(assembly.train().labels >= 0)
    assert len(assembly.read("validation")) == len(assembly.splits.validation)
