"""The loss against the gold labels."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from kd.contract import IGNORED_LABEL, precise
from kd.options.declared import Checked, Probability


def label_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy over the rows that have a label; 0, with zero gradient, where none has.

    ``-(1/N) sum_b sum_c q_bc log p_bc``, ``p = softmax(logits)``, over the N rows with a label y;
    ``q_bc = (1 - label_smoothing) [c = y_b] + label_smoothing / C``

    Args:
        logits: ``[B, C]``.
        labels: ``[B]``, class numbers, -100 where there is none.

    Returns:
        Scalar, in nats.

    Source: Szegedy et al. 2016 (label smoothing), https://arxiv.org/abs/1512.00567

    >>> import torch
    >>> round(label_loss(torch.zeros(2, 2), torch.tensor([1, -100])).item(), 4)  # ln 2
    0.6931
    """
    total = functional.cross_entropy(
        precise(logits), labels, ignore_index=IGNORED_LABEL, reduction="sum", label_smoothing=label_smoothing
    )
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


@final
class LabelLoss(nn.Module, Checked):
    """The loss of `label_loss`.

    Args:
        label_smoothing: part of the target that is spread evenly over the classes; 0.1 is usual.
    """

    def __init__(self, label_smoothing: Probability = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute `label_loss`."""
        return label_loss(logits, labels, self.label_smoothing)
