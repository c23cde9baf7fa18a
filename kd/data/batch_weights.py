"""What each batch counts in an optimizer step that several batches or ranks share. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def row_counts(labels: np.ndarray, own: np.ndarray) -> np.ndarray:
    """``[2, 2]``: rows and labelled rows of a batch over all ranks, and of this rank's part, by their labels."""
    return np.array([[len(part), np.count_nonzero(part >= 0)] for part in (labels, own)])


def batch_shares(counts: Sequence[np.ndarray], accumulate: int, world_size: int) -> np.ndarray:
    """What each batch of an epoch counts, so that all batches of an optimizer step on all ranks are one large batch.

    Lightning and DDP average over batches and ranks, which may hold unequal numbers of rows, and the last step of an
    epoch may have fewer batches. The first factor makes of this mean the mean over rows; the second, within the label
    loss, that over labelled rows.

    Args:
        counts: `row_counts` of each batch.
        accumulate: batches a step.
        world_size: ranks.

    Returns:
        ``[batches, 2]``; all 1 where all batches are alike.

    >>> batch_shares([row_counts(np.array([1, 1, -100]), np.array([1, 1]))], 1, 2).round(3).tolist()
    [[1.333, 1.5]]
    """
    found = np.array(counts)
    steps = np.add.reduceat(found[:, 0], np.arange(0, len(found), accumulate)).repeat(accumulate, axis=0)
    rows, labelled = (found[:, 1] / np.maximum(steps[: len(found)], 1)).T
    return np.stack([rows * world_size * accumulate, labelled / rows], axis=1)
