"""Knowledge distillation from a frozen teacher, live or from the cache."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Callable, Collection
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.distributed import DeviceMesh
from transformers import PretrainedConfig, PreTrainedModel

from kd.contract import ATTENTION_OUTPUTS, IGNORED_LABEL, Answer, Batch, supported_outputs
from kd.errors import KDError
from kd.features.feature import Feature, read
from kd.methods.base import Method, Recipe, inputs_of, trained
from kd.methods.confidence import EveryRow
from kd.methods.objective import Objective
from kd.methods.regularisation import regularised
from kd.methods.sharding import FullySharded, shard
from kd.methods.weighting import ConstantWeighting
from kd.options.methods import DistillationOptions, MethodOptions

Source = Callable[[Batch, Collection[Feature]], tuple[Tensor, dict[Feature, Tensor]]]
"""A function that returns a teacher's logits ``[B, C]`` for a batch, and the features that are asked for."""


@final
class FrozenTeacher:
    """A live teacher that is never trained.

    It is not a ``torch.nn.Module``: a method that contains it does not switch it to training mode, and leaves it out
    of optimizer, checkpoints, weight averaging and DDP.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        return self

    def sharded(self, mesh: DeviceMesh) -> FrozenTeacher:
        """Return a copy whose weights are divided among the ranks."""
        model = copy.deepcopy(self.model)
        shard([model], mesh)
        return FrozenTeacher(model)

    @torch.no_grad()
    def __call__(self, batch: Batch, features: Collection[Feature] = ()) -> tuple[Tensor, dict[Feature, Tensor]]:
        device = batch["input_ids"].device
        if self.model.device != device:
            self.model.to(device)
        with torch.autocast(device.type, enabled=False):  # as when the cache is filled
            logits, found = read(self.model, teacher_inputs(batch), features)
        return logits.float(), {feature: value.float() for feature, value in found.items()}


def teacher_inputs(batch: Batch) -> Batch:
    """Return what the teacher reads: its own tokens where the batch has them, the student's otherwise."""
    return inputs_of(batch, "teacher_" if "teacher_input_ids" in batch else "")


def cached_teacher(batch: Batch, features: Collection[Feature] = ()) -> tuple[Tensor, dict[Feature, Tensor]]:
    """Return the teacher's outputs that the batch contains."""
    return batch["teacher_logits"], {feature: batch[f"teacher_{feature.column}"] for feature in features}


class TaughtMethod(Method, ABC):
    """A student that learns from a frozen teacher.

    Args:
        objective: the transfer terms and their balance.
        teacher: a `FrozenTeacher`, or `cached_teacher` where batches contain the teacher's outputs.
        options: of the method; None: its defaults.
    """

    reads_teacher = True
    default_options: ClassVar[MethodOptions] = MethodOptions()

    def __init__(
        self,
        student: PreTrainedModel,
        recipe: Recipe,
        objective: Objective,
        teacher: Source = cached_teacher,
        options: MethodOptions | None = None,
    ):
        super().__init__(student, recipe)
        self.objective, self.teacher, self.options = objective, teacher, options or self.default_options
        self.require(objective, self.options)

    def learners(self) -> list[nn.Module]:
        return [self.student, *self.objective.learners()]

    def configure_model(self) -> None:
        super().configure_model()
        if isinstance(self.trainer.strategy, FullySharded) and isinstance(self.teacher, FrozenTeacher):
            self.teacher = self.teacher.sharded(self.trainer.strategy.mesh)


class LogitMethod(TaughtMethod, ABC):
    """A method whose transfer terms read only logits."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.terms(self.logits(batch), batch)

    def terms(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute ``total`` and its terms from the student's logits."""
        answered = batch.get("teacher_answered")
        if answered is None:
            return self._taught(logits, batch)
        # A teacher that is a file lacks some rows: these have the label loss alone, the others the whole objective.
        # Transfer terms are means over rows, label losses over labelled rows, whatever batches the rows are in.
        rest, labelled = ~answered, batch["labels"] != IGNORED_LABEL
        rows, labels = answered.float().mean(), (answered & labelled).sum() / labelled.sum().clamp(min=1)
        gold = (1 - labels) * self.label_term(logits[rest], rows_of(batch, rest))
        factor: Tensor | float = labels / rows
        if not rows:  # all ranks must compute the same terms: here, from any answer, and with a factor of 0
            answered, factor = rest, 0.0
            batch = {**batch, "teacher_logits": torch.zeros_like(batch["teacher_logits"])}
        parts = self._taught(logits[answered], rows_of(batch, answered), factor)
        return parts | {name: rows * parts[name] + gold for name in ("total", "label")}

    def _taught(self, logits: Tensor, batch: Batch, label_factor: float | Tensor = 1.0) -> dict[str, Tensor]:
        label = self.label_term(logits, batch) * label_factor
        answers = {}
        if self.objective.needs_teacher(self.progress):
            pair = Answer(logits=logits), Answer(logits=self.teacher(batch, ())[0])
            answers = {name: [pair] for name in self.objective.transfer}
        parts, self.curves = self.objective(label, answers, batch, self.progress, lambda: trained(self.student))
        return parts


@final
class Distillation(LogitMethod):
    """``(1 - alpha) * label_loss + alpha * sum_i weight_i * loss_i(student, teacher)``, on logits."""

    default_options = DistillationOptions()
    options: DistillationOptions

    @classmethod
    def require(cls, objective: Objective, options: DistillationOptions) -> None:
        """Refuse an objective without a transfer term, or with one that reads more than logits."""
        require_losses("distillation", objective)
        require_logits("distillation", objective, "use method=hints")
        if options.fair_weights:
            if not isinstance(objective.confidence, EveryRow):
                raise KDError(
                    "method.fair_weights and balance/confidence both weigh rows; leave balance/confidence=none, or set "
                    "method.fair_weights=0"
                )
            if unweighted := [name for name, loss in objective.transfer.items() if not loss.weighs_rows]:
                raise KDError(
                    f"method.fair_weights weighs rows, and loss '{unweighted[0]}' has no weight for each; use "
                    "loss=[soft_target] or another on logits with it, or set method.fair_weights=0"
                )
        if options.mixup and not isinstance(objective.weighting, ConstantWeighting):
            raise KDError(
                "method.mixup computes each term twice a step, and this balance/weighting follows the terms; leave "
                "balance/weighting=constant, or set method.mixup=0"
            )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return regularised(self.options, self.logits, self.terms, batch)


def rows_of(batch: Batch, chosen: Tensor) -> Batch:
    """Return some rows of a batch; ``chosen`` is ``[B]`` bool."""
    return {name: value[chosen] for name, value in batch.items()}


def require_losses(method: str, objective: Objective) -> None:
    """Refuse an objective without a transfer term."""
    if not objective.transfer:
        raise KDError(f"method={method} needs a transfer term, got none; use loss=[soft_target] or another")


def require_logits(method: str, objective: Objective, advice: str) -> None:
    """Refuse a transfer term that reads more than logits."""
    for name, loss in objective.transfer.items():
        if loss.needs != {"logits"}:
            needs = needs_in_words(loss.needs)
            raise KDError(f"loss '{name}' compares {needs}, and method={method} only logits; {advice}")


def needs_in_words(needs: frozenset[str]) -> str:
    """Return what a loss reads beyond logits, for a message."""
    words = ["attention maps"] if needs & ATTENTION_OUTPUTS else []
    words += sorted(output.replace("_", " ") for output in needs - ATTENTION_OUTPUTS - {"logits"})
    return " and ".join(words) or "logits"


def check_outputs(loss: str, needs: frozenset[str], config: PretrainedConfig, role: str) -> None:
    """Refuse a loss that reads an output that the model does not have."""
    missing = needs - supported_outputs(config)
    if missing:
        gives = ", ".join(sorted(output.replace("_", " ") for output in supported_outputs(config)))
        raise KDError(
            f"loss '{loss}' needs {needs_in_words(missing)}; {role} '{config.model_type}' gives only {gives}; "
            f"use hint, relation or logit losses, or a transformer as {role}"
        )
