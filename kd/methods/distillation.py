"""Knowledge distillation from a frozen teacher, live or from the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.contract import Batch, Loss, supported_outputs
from kd.errors import KDError
from kd.methods.base import Method, objective, student_output


@final
class FrozenTeacher:
    """A teacher that only answers.

    It is not a ``torch.nn.Module``, so that no train mode, optimizer, checkpoint, weight averaging or DDP
    ever finds it inside a method.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        return self

    @torch.no_grad()
    def __call__(self, batch: Batch, **wanted: bool) -> SequenceClassifierOutput:
        """The answer to the teacher's own tokens where the batch has them, to the student's otherwise."""
        if self.model.device != batch["input_ids"].device:
            self.model.to(batch["input_ids"].device)
        with torch.autocast(batch["input_ids"].device.type, enabled=False):  # as the cache was labelled
            return self.model(
                input_ids=batch.get("teacher_input_ids", batch["input_ids"]),
                attention_mask=batch.get("teacher_attention_mask", batch["attention_mask"]),
                **wanted,
            )


def cached_teacher(batch: Batch, **wanted: bool) -> SequenceClassifierOutput:
    """The teacher's answer as the cache holds it."""
    return SequenceClassifierOutput(logits=batch["teacher_logits"])


@final
class Distillation(Method):
    """``(1 - alpha) * label_loss + alpha * sum_i weight_i * loss_i(student, teacher)``.

    Args:
        losses: the transfer terms by name.
        alpha: share of the transfer terms, in [0, 1].
        teacher: a `FrozenTeacher`, or `cached_teacher` where batches carry ``teacher_logits``.
        student, label_loss, optimizer, schedule, seed: see `Method`.

    Raises:
        KDError: for an alpha outside [0, 1], no loss, or a loss that needs what the student cannot give.
    """

    reads_teacher = True

    def __init__(
        self,
        student: PreTrainedModel,
        label_loss: nn.Module,
        optimizer: Callable[[Iterable], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        losses: Mapping[str, Loss],
        alpha: float,
        teacher: Callable[..., SequenceClassifierOutput] = cached_teacher,
        seed: int = 0,
    ):
        super().__init__(student, label_loss, optimizer, schedule, seed)
        if not 0 <= alpha <= 1:
            raise KDError(f"alpha: expected the share of the transfer terms in [0, 1], got {alpha}")
        if not losses:
            raise KDError("method=distillation needs a transfer term, got none; use loss=[soft_target] or another")
        self.transfer, self.alpha, self.teacher = nn.ModuleDict(losses), alpha, teacher
        if taken := {"total", "label"} & set(losses):
            raise KDError(f"loss '{taken.pop()}' has the name of another part of the objective; rename it")
        wanted = frozenset().union(*(loss.needs for loss in losses.values()))
        for name, loss in losses.items():
            check_outputs(name, loss.needs, student.config, "student")
        if teacher is cached_teacher and wanted != {"logits"}:
            extra = ", ".join(sorted(wanted - {"logits"}))
            raise KDError(f"the teacher cache holds logits, and the losses need {extra} too; set cache=false")
        self.wanted = {f"output_{output}": True for output in wanted - {"logits"}}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        student = student_output(self.student, batch, **self.wanted)
        label = self.label_loss(student.logits, batch["labels"])
        transfer = {}
        if self.alpha > 0:
            teacher = self.teacher(batch, **self.wanted)
            transfer = {name: loss(student, teacher, batch) for name, loss in self.transfer.items()}
        weights = {name: loss.weight for name, loss in self.transfer.items()}
        return {"total": objective(label, transfer, weights, self.alpha), "label": label, **transfer}


def check_outputs(loss: str, needs: frozenset[str], config: PretrainedConfig, role: str) -> None:
    """Refuse a loss that reads what a model cannot give."""
    missing = needs - supported_outputs(config)
    if missing:
        raise KDError(
            f"loss '{loss}' needs {' and '.join(sorted(missing)).replace('_', ' ')}; {role} "
            f"'{config.model_type}' gives only {', '.join(sorted(supported_outputs(config)))}; "
            f"choose another loss, or a transformer as {role}"
        )
