"""Weights that make the mean over batches and ranks the mean over an optimizer step's rows."""

import numpy as np
import pytest

from kd.data.batch_weights import batch_shares, row_counts


def test_rows_and_labelled_rows_are_counted():
    assert row_counts(np.array([0, 1, -100]), np.array([-100])).tolist() == [[3, 2], [1, 0]]


def test_batches_that_are_alike_have_weight_one():
    labels = np.array([0, 1, 1, 0])
    shares = batch_shares([row_counts(labels, labels[:2])] * 6, accumulate=3, world_size=2)
    np.testing.assert_array_equal(shares, np.ones((6, 2)))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_weighted_means_are_means_over_the_step(accumulate, world_size):
    generator = np.random.default_rng(0)
    sizes = generator.integers(world_size, 9, 7)  # seven batches, so that the last step may have fewer
    labels = [np.where(generator.random(size) < 0.3, -100, 1) for size in sizes]
    values = [generator.normal(size=size) for size in sizes]
    parts = [np.array_split(np.arange(size), world_size) for size in sizes]
    counts = [
        [row_counts(y, y[part[rank]]) for y, part in zip(labels, parts, strict=True)] for rank in range(world_size)
    ]
    shares = np.stack([batch_shares(own, accumulate, world_size) for own in counts])
    for start in range(0, len(sizes), accumulate):
        step = range(start, min(start + accumulate, len(sizes)))
        mean = labelled_mean = 0.0
        for batch in step:
            for rank, rows in enumerate(parts[batch]):
                weight, label_weight = shares[rank, batch]
                own, gold = values[batch][rows], labels[batch][rows] >= 0
                mean += weight * own.mean() / (world_size * accumulate)
                if gold.any():
                    labelled_mean += weight * label_weight * own[gold].mean() / (world_size * accumulate)
        every, gold = (np.concatenate([part[batch] for batch in step]) for part in (values, labels))
        assert mean == pytest.approx(every.mean())
        assert labelled_mean == pytest.approx(every[gold >= 0].mean())
