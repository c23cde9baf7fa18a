"""The loss against the gold labels."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kd.contract import IGNORED_LABEL, precise
from kd.options.declared import Checked, Probability


def label_loss(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy over the rows that have a label; 0, with zero gradient, where none has.

    ``-(1/N) sum_b w_{y_b} sum_c q_bc log p_bc``, ``p = softmax(logits)``, over the N rows with a label y;
    ``q_bc = (1 - label_smoothing) [c = y_b] + label_smoothing / C``

    Args:
        logits: ``[B, C]``.
        labels: ``[B]``, class numbers, -100 where there is none.
        label_smoothing: as above.
        class_weights: w, ``[C]``, the weight of a row with this label; None: 1 for each.

    Returns:
        Scalar, in nats.

    Source: Szegedy et al. 2016 (label smoothing), https://arxiv.org/abs/1512.00567

    >>> import torch
    >>> round(label_loss(torch.zeros(2, 2), torch.tensor([1, -100])).item(), 4)  # ln 2
    0.6931
    """
    total = functional.cross_entropy(
        precise(logits),
        labels,
        ignore_index=IGNORED_LABEL,
        reduction="sum" if class_weights is None else "none",
        label_smoothing=label_smoothing,
    )
    if class_weights is not None:
        total = (total * class_weights[labels.clamp(min=0)]).sum()  # 0 for a row without a label
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


def balanced(labels: np.ndarray, classes: int) -> list[float]:
    """Return weights of the classes that give each of those with a row the same total weight: ``N / (K n_c)``.

    N is the number of labelled rows, n_c of those with label c, and K the number of labels with a row. The mean weight
    of a row is 1, so that the label loss keeps its size beside the transfer terms.

    Args:
        labels: ``[N]``; -100 where there is none.
        classes: number of labels.

    Source: King and Zeng 2001, https://gking.harvard.edu/files/0s.pdf (scikit-learn's "balanced")

    >>> balanced(np.array([0, 0, 0, 1, -100]), 2)
    [0.6666666666666666, 2.0]
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    return (counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))).tolist()


@final
class LabelLoss(nn.Module, Checked):
    """The loss of `label_loss`.

    Args:
        label_smoothing: part of the target that is spread evenly over the classes; 0.1 is usual.
        class_weights: weight of a row for each label; None: 1.
    """

    class_weights: Tensor | None

    def __init__(self, label_smoothing: Probability = 0.0, class_weights: list[float] | None = None):
        super().__init__()
        self.label_smoothing = label_smoothing
        # Not in checkpoints: the configuration and the rows give the weights again.
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute `label_loss`."""
        return label_loss(logits, labels, self.label_smoothing, self.class_weights)
