"""Weights of the batches in an optimizer step of several batches or ranks. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def row_counts(labels: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Count rows and labelled rows, ``[2, 2]``: of a batch over all ranks, by its labels, and of this rank's part."""
    return np.array([[len(part), np.count_nonzero(part >= 0)] for part in (labels, own)])


def batch_shares(counts: Sequence[np.ndarray], accumulate: int, world_size: int) -> np.ndarray:
    """Return the weights of an epoch's batches that make each optimizer step equal to a step on one large batch.

    Lightning and DDP average the loss over batches and ranks. But these may hold unequal numbers of rows, and the last
    step of an epoch may have fewer batches. With the first weight, the average is the mean over all rows of the step.
    The label loss is also multiplied by the second weight, and becomes the mean over all labelled rows.

    Args:
        counts: `row_counts` of each batch.
        accumulate: batches in a step.
        world_size: number of ranks.

    Returns:
        weights ``[batches, 2]``; all are 1 if all batches are alike.

    >>> batch_shares([row_counts(np.array([1, 1, -100]), np.array([1, 1]))], 1, 2).round(3).tolist()
    [[1.333, 1.5]]
    """
    found = np.array(counts)
    steps = np.add.reduceat(found[:, 0], np.arange(0, len(found), accumulate)).repeat(accumulate, axis=0)
    rows, labelled = (found[:, 1] / np.maximum(steps[: len(found)], 1)).T  # this batch's part of the step
    return np.stack([rows * world_size * accumulate, labelled / rows], axis=1)
