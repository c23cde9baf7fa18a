"""Composition: the teacher's lower layers and a mapper in place of the student's own embeddings."""

from __future__ import annotations

from typing import final

from torch import Tensor

from kd.contract import Batch
from kd.features.feature import Feature
from kd.methods.base import decay_groups, logits_of
from kd.methods.distillation import LogitMethod, require_logits
from kd.methods.objective import Objective
from kd.options.methods import CompositionOptions


@final
class Composition(LogitMethod):
    """Train a student that reads the teacher's mapped states in place of its own embeddings.

    The student is a `kd.models.composition.ComposedStudent`: the frozen lower layers of the teacher, a mapper and a
    small body. Where batches contain the output of these layers from the cache, the layers do not run. The objective
    may have no transfer term.
    """

    options: CompositionOptions
    default_options = CompositionOptions()
    unsaved = ("student.encoder.",)

    @classmethod
    def require(cls, objective: Objective, options: CompositionOptions) -> None:
        """Refuse a transfer term that reads features."""
        advice = "the teacher's layers are the student's input; use losses on logits, loss=[], or method=hints"
        require_logits("composition", objective, advice)

    def logits(self, batch: Batch) -> Tensor:
        features = batch.get(f"teacher_{Feature('hidden_states', self.student.config.layer).column}")
        return logits_of(self.student, batch, **({} if features is None else {"features": features}))

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Add the frozen encoder to the checkpoint: weight averaging expects all weights there."""
        encoder = {name: value for name, value in self.state_dict().items() if name.startswith(self.unsaved)}
        checkpoint["state_dict"] = encoder | checkpoint["state_dict"]

    def parameter_groups(self) -> list[dict]:
        mapper = decay_groups(self.student.mapper, lr=self.options.mapper_learning_rate)
        return decay_groups(self.student.body, self.objective) + mapper
