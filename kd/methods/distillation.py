"""Knowledge distillation from a frozen teacher, live or from the cache."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Collection, Iterable
from typing import final

import torch
from torch import Tensor, nn
from torch.distributed import DeviceMesh
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PretrainedConfig, PreTrainedModel

from kd.contract import ATTENTION_OUTPUTS, Answer, Batch, supported_outputs
from kd.errors import KDError
from kd.features.feature import Feature, read
from kd.methods.base import Method
from kd.methods.objective import Objective
from kd.methods.sharding import FullySharded, sharded_copy
from kd.options.methods import DistillationOptions

Source = Callable[[Batch, Collection[Feature]], tuple[Tensor, dict[Feature, Tensor]]]
"""A teacher as a method asks it: a batch and the features wanted -> logits ``[B, C]`` and the features."""


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

    def sharded(self, mesh: DeviceMesh) -> FrozenTeacher:
        """One that no rank holds whole."""
        return FrozenTeacher(sharded_copy(self.model, mesh))

    @torch.no_grad()
    def __call__(self, batch: Batch, features: Collection[Feature] = ()) -> tuple[Tensor, dict[Feature, Tensor]]:
        """The answer to the teacher's own tokens where the batch has them, to the student's otherwise."""
        if self.model.device != batch["input_ids"].device:
            self.model.to(batch["input_ids"].device)
        with torch.autocast(batch["input_ids"].device.type, enabled=False):  # as the cache was labelled
            logits, found = read(self.model, teacher_inputs(batch), features)
        return logits.float(), {feature: value.float() for feature, value in found.items()}


def teacher_inputs(batch: Batch) -> Batch:
    """What the teacher reads: its own tokens where the batch has them, the student's otherwise."""
    own = "teacher_" if "teacher_input_ids" in batch else ""
    return {name: batch[own + name] for name in ("input_ids", "attention_mask")}


def cached_teacher(batch: Batch, features: Collection[Feature] = ()) -> tuple[Tensor, dict[Feature, Tensor]]:
    """The teacher's answer as the cache holds it."""
    return batch["teacher_logits"], {feature: batch[f"teacher_{feature.column}"] for feature in features}


class TaughtMethod(Method, ABC):
    """A student that learns from a frozen teacher."""

    reads_teacher = True
    objective: Objective
    teacher: Source

    def learners(self) -> list[nn.Module]:
        return [self.student, *self.objective.learners()]

    def configure_model(self) -> None:
        super().configure_model()
        if isinstance(self.trainer.strategy, FullySharded) and isinstance(self.teacher, FrozenTeacher):
            self.teacher = self.teacher.sharded(self.trainer.strategy.mesh)


class LogitMethod(TaughtMethod, ABC):
    """Transfer terms that read nothing but logits."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        output = self.answer(batch)
        label = self.label_term(output.logits, batch)
        answers = {}
        if self.objective.asks_teacher(self.progress):
            pair = Answer(logits=output.logits), Answer(logits=self.teacher(batch, ())[0])
            answers = {name: [pair] for name in self.objective.transfer}
        parts, self.curves = self.objective(label, answers, batch, self.progress, lambda: trained(self.student))
        return parts


@final
class Distillation(LogitMethod):
    """``(1 - alpha) * label_loss + alpha * sum_i weight_i * loss_i(student, teacher)``, on logits.

    Args:
        objective: the transfer terms and their balance.
        teacher: a `FrozenTeacher`, or `cached_teacher` where batches carry ``teacher_logits``.
        options: it has none.
        student, label_loss, optimizer, schedule, seed: see `Method`.

    Raises:
        KDError: see `require`.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        label_loss: nn.Module,
        optimizer: Callable[[Iterable], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        objective: Objective,
        teacher: Source = cached_teacher,
        options: DistillationOptions = DistillationOptions(),  # noqa: B008  it is frozen
        seed: int = 0,
    ):
        super().__init__(student, label_loss, optimizer, schedule, seed)
        self.require(objective, options)
        self.objective, self.teacher = objective, teacher

    @classmethod
    def require(cls, objective: Objective, options: DistillationOptions) -> None:
        """Refuse an objective without a transfer term, or with one that reads more than logits.

        Raises:
            KDError: naming it.
        """
        require_losses("distillation", objective)
        for name, loss in objective.transfer.items():
            if loss.needs != {"logits"}:
                raise KDError(
                    f"loss '{name}' compares {needs_in_words(loss.needs)}, and method=distillation only logits; "
                    "use method=hints"
                )


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def require_losses(method: str, objective: Objective) -> None:
    """Refuse a method without a transfer term."""
    if not objective.transfer:
        raise KDError(f"method={method} needs a transfer term, got none; use loss=[soft_target] or another")


def needs_in_words(needs: frozenset[str]) -> str:
    """What a loss reads beyond logits, for a message."""
    words = ["attention maps"] if needs & ATTENTION_OUTPUTS else []
    words += sorted(output.replace("_", " ") for output in needs - ATTENTION_OUTPUTS - {"logits"})
    return " and ".join(words) or "logits"


def check_outputs(loss: str, needs: frozenset[str], config: PretrainedConfig, role: str) -> None:
    """Refuse a loss that reads what a model cannot give."""
    missing = needs - supported_outputs(config)
    if missing:
        gives = ", ".join(sorted(output.replace("_", " ") for output in supported_outputs(config)))
        raise KDError(
            f"loss '{loss}' needs {needs_in_words(missing)}; {role} '{config.model_type}' gives only {gives}; "
            f"use hint, relation or logit losses, or a transformer as {role}"
        )
