"""Train on gold labels alone: the baseline of every table, and how a teacher is fine-tuned."""

from __future__ import annotations

from typing import final

from torch import Tensor

from kd.contract import Batch
from kd.methods.base import Method


@final
class Supervised(Method):
    """``label_loss(student(x), y)``."""

    reads_teacher = False

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        label = self.label_term(self.logits(batch), batch)
        return {"total": label, "label": label}
