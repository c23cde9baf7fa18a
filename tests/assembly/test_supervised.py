"""A supervised run trains on the rows with a gold label."""

import numpy as np
from datasets import Dataset

from kd.data.batching import labels_of


def test_rows_without_a_gold_label_are_left_out_of_training_alone(assembled):
    assembly = assembled("method=supervised")
    splits = assembly.splits
    rows, labels = len(splits.train), labels_of(splits.train).copy()
    labels[:5] = -100
    train = Dataset.from_dict({**splits.train.to_dict(), "label": labels})
    assembly.splits = type(splits)(train, splits.validation, splits.test, splits.label_names, splits.counts)
    assert len(assembly.train()) == rows - 5 and np.all(assembly.train().labels >= 0)
    assert len(assembly.read("validation")) == len(splits.validation)
