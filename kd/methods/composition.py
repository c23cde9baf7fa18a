"""Composition: the teacher's lower layers and a mapper in place of the student's own embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import final

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.contract import Batch
from kd.errors import KDError
from kd.methods.base import decay_groups, student_output
from kd.methods.distillation import LogitMethod, Source, cached_teacher
from kd.methods.objective import Objective
from kd.options.methods import CompositionOptions


@final
class Composition(LogitMethod):
    """Train a student that reads the teacher's mapped states in place of its own embeddings.

    The student is the composition: cut teacher (frozen), mapper, small body. Where batches carry the teacher's
    features from the cache, the teacher itself does not run.

    Args:
        student: a composed student, see `kd.models`.
        objective: the transfer terms, which may be none, and their balance.
        column: the teacher's features that the body reads, by their name in the cache.
        teacher: see `kd.methods.distillation`; it gives logits where there are transfer terms.
        options: see `CompositionOptions`.
        label_loss, optimizer, schedule, seed: see `Method`.

    Raises:
        KDError: see `require`.
    """

    unsaved = ("student.encoder.",)

    def __init__(
        self,
        student: PreTrainedModel,
        label_loss: nn.Module,
        optimizer: Callable[[Iterable], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        objective: Objective,
        column: str,
        teacher: Source = cached_teacher,
        options: CompositionOptions = CompositionOptions(),  # noqa: B008  it is frozen
        seed: int = 0,
    ):
        super().__init__(student, label_loss, optimizer, schedule, seed)
        self.require(objective, options)
        self.objective, self.column, self.teacher, self.options = objective, column, teacher, options

    @classmethod
    def require(cls, objective: Objective, options: CompositionOptions) -> None:
        """Refuse a transfer term that reads features.

        Raises:
            KDError: naming it.
        """
        for name, loss in objective.transfer.items():
            if loss.needs != {"logits"}:
                raise KDError(
                    f"loss '{name}' compares layers, and with method=composition the teacher's layers are the "
                    "student's input; use losses on logits, loss=[], or method=hints"
                )

    def answer(self, batch: Batch) -> SequenceClassifierOutput:
        features = batch.get(f"teacher_{self.column}")
        return student_output(self.student, batch, **({} if features is None else {"features": features}))

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Put the frozen encoder beside what was saved: weight averaging looks for it there."""
        encoder = {name: value for name, value in self.state_dict().items() if name.startswith(self.unsaved)}
        checkpoint["state_dict"] = encoder | checkpoint["state_dict"]

    def parameter_groups(self) -> list[dict]:
        mapper = decay_groups(self.student.mapper, lr=self.options.mapper_learning_rate)
        return decay_groups(self.student.body, self.objective) + mapper
