"""What the student learns from the gold labels."""

from __future__ import annotations

from numbers import Real
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from kd.contract import IGNORED_LABEL
from kd.errors import KDError


def label_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy over the rows that have a label; 0, with zero gradient, where none has.

    ``-(1/N) sum_b sum_c q_bc log p_bc``, ``p = softmax(logits)``, over the N rows with a label y;
    ``q_bc = (1 - label_smoothing) [c = y_b] + label_smoothing / C``

    Args:
        logits: ``[B, C]``, in any floating type; the loss is computed in float32 at least.
        labels: ``[B]``, class numbers, -100 where there is none.
        label_smoothing: share of the target spread evenly over the classes, in [0, 1); 0.1 is usual.

    Returns:
        Scalar, in nats.

    Source: Szegedy et al. 2016 (label smoothing), https://arxiv.org/abs/1512.00567

    >>> round(label_loss(torch.zeros(2, 2), torch.tensor([1, -100])).item(), 4)  # ln 2
    0.6931
    """
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = functional.cross_entropy(
        precise, labels, ignore_index=IGNORED_LABEL, reduction="sum", label_smoothing=label_smoothing
    )
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


@final
class LabelLoss(nn.Module):
    """`label_loss` with its options fixed.

    Args:
        label_smoothing: share of the target spread evenly over the classes, in [0, 1).

    Raises:
        KDError: label_smoothing is outside [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        if not (isinstance(label_smoothing, Real) and 0 <= label_smoothing < 1):
            raise KDError(
                f"label_smoothing must lie in [0, 1), found {label_smoothing!r}; "
                "give 0 for no smoothing, or a small share such as 0.1"
            )
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `label_loss`."""
        return label_loss(logits, labels, self.label_smoothing)
