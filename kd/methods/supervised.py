"""Train on gold labels alone: the baseline of every table, and how a teacher is fine-tuned."""

from __future__ import annotations

from typing import final

from torch import Tensor
from transformers import PreTrainedModel

from kd.contract import Batch
from kd.methods.base import Method, Recipe
from kd.methods.regularisation import regularised
from kd.options.methods import SupervisedOptions


@final
class Supervised(Method):
    """``label_loss(student(x), y)``."""

    reads_teacher = False

    def __init__(self, student: PreTrainedModel, recipe: Recipe, options: SupervisedOptions | None = None):
        super().__init__(student, recipe)
        self.options = options or SupervisedOptions()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return regularised(self.options, self.logits, self.terms, batch)

    def terms(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute the label loss."""
        label = self.label_term(logits, batch)
        return {"total": label, "label": label}
