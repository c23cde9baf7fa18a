"""Training on gold labels alone: the baseline of every table, and how a teacher is fine-tuned."""

from __future__ import annotations

from typing import final

from torch import Tensor

from kd.contract import Batch
from kd.methods.base import Method, student_output


@final
class Supervised(Method):
    """``label_loss(student(x), y)``."""

    reads_teacher = False

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        label = self.label_term(student_output(self.student, batch).logits, batch)
        return {"total": label, "label": label}
