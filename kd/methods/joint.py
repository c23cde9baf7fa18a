"""Joint training: a teacher and a student, or peers without a teacher, learn at the same time."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torchmetrics.classification import MulticlassAccuracy
from transformers import PreTrainedModel

from kd.contract import IGNORED_LABEL, Answer, Batch, Loss, detached
from kd.errors import KDError
from kd.measure.inference import evaluating
from kd.methods.base import Method, Recipe, decay_groups, factors, logits_of, trained
from kd.methods.distillation import require_logits, require_losses, teacher_inputs
from kd.methods.objective import Objective
from kd.options.methods import JointOptions

log = logging.getLogger(__name__)

TEACHER = "teacher"
"""The name of the partner that reads the teacher's tokens; all other partners are peers of the student."""


@final
class Joint(Method):
    """All models learn at the same time, each from the labels and from the others.

    ``student_weight * CE(student, y) + alpha * sum_i weight_i * loss_i(student, partner)`` and, for each partner,
    ``partner_weight * CE(partner, y) + partner_alpha * sum_i weight_i * loss_i(partner, others)``. If a model learns
    from several others, their terms are averaged. A term updates only the model that learns from it; with ``flow``, the
    student's terms update the partners too. Calibration, confidence and weighting apply to the student's terms.

    Args:
        partners: the other models by name: "teacher" reads the teacher's tokens, all others the student's.
        objective: the student's transfer terms and their balance.
        column: the column of the batches that contains the output of the teacher's frozen layers, if the partner
            "teacher" consists of the layers above them (`kd.models.pretrained.upper_part`); None for a whole teacher.

    Source: Zhang et al. 2018 (deep mutual learning), https://arxiv.org/abs/1706.00384
    """

    reads_teacher = True
    accuracy_before: Tensor

    def __init__(
        self,
        student: PreTrainedModel,
        recipe: Recipe,
        objective: Objective,
        partners: Mapping[str, PreTrainedModel],
        options: JointOptions,
        column: str | None = None,
    ):
        super().__init__(student, recipe)
        labels = cast(int, student.config.num_labels)
        self.require(objective, options, TEACHER in partners, labels)
        for loss in objective.transfer.values():
            loss.teaches_back = options.flow
        self.partners, self.objective, self.options = nn.ModuleDict(partners).train(), objective, options
        self.column = column
        for name, partner in partners.items():
            learns = chosen(options.partner_weight, name, 1.0, 1.0) or chosen(options.partner_alpha, name, 0.0, 1.0)
            if not (learns or options.flow):
                partner.requires_grad_(False)
        if TEACHER not in partners:  # untrained peers agree at the first step, and a term's size means nothing
            objective.measured.fill_(True)
        accuracies = {
            name: MulticlassAccuracy(labels, average="micro", ignore_index=IGNORED_LABEL) for name in partners
        }
        self.partner_accuracy = cast(Mapping[str, MulticlassAccuracy], nn.ModuleDict(accuracies))
        self.register_buffer("accuracy_before", torch.full((len(partners),), math.nan))

    @classmethod
    def require(cls, objective: Objective, options: JointOptions, teacher: bool = True, num_labels: int = 2) -> None:
        """Refuse terms that joint training cannot use, and settings that contradict each other."""
        require_losses("joint", objective)
        require_logits("joint", objective, "choose losses on logits, or method=hints with a frozen teacher")
        for name, loss in objective.transfer.items() if options.flow else ():
            require_rest_at_agreement(name, loss, num_labels)
        if options.flow and options.clean_targets:
            raise KDError("method.flow=true needs the training pass of the teacher; set method.clean_targets=false")
        if options.student_weight == 0 and objective.alpha.bounds()[1] == 0:
            raise KDError("method.student_weight=0 and alpha=0 leave the student nothing to learn; raise one of them")
        if objective.calibrate and not teacher:
            raise KDError("balance.calibrate=true measures the first step, where peers agree; set it to false")

    def learners(self) -> list[nn.Module]:
        return [self.student, *self.objective.learners(), *self.partners.values()]

    def partner_logits(self, name: str, batch: Batch) -> Tensor:
        """Compute a partner's logits ``[B, C]``, in its present mode."""
        partner = self.partners[name]
        if name != TEACHER:
            return logits_of(partner, batch)
        inputs = teacher_inputs(batch)
        if self.column is None:
            return logits_of(partner, inputs)
        states = batch[f"teacher_{self.column}"].float()
        return partner(inputs_embeds=states, attention_mask=inputs["attention_mask"]).logits

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        needed, alpha = self.objective.needs_teacher(self.progress), self.objective.alpha.at(self.progress)
        back = {name: chosen(self.options.partner_alpha, name, 0.0, alpha) for name in self.partners}
        logits = {"student": self.logits(batch)}
        logits |= {name: self.partner_logits(name, batch) for name in self.partners}
        targets = self._targets(batch, logits, needed, any(back.values()))
        own = Answer(logits=logits["student"])
        pairs = [(own, targets[name]) for name in self.partners] if needed else []
        label = self.label_term(logits["student"], batch)
        answers = {name: pairs for name in self.objective.transfer} if pairs else {}
        parts, self.curves = self.objective(
            *(label, answers, batch, self.progress, lambda: trained(self.student)),
            label_share=self.options.student_weight,
        )
        own_share = 1 - alpha if self.options.student_weight is None else self.options.student_weight
        for name in self.partners:
            parts[f"{name}_label"] = self.label_term(logits[name], batch)
            weight = chosen(self.options.partner_weight, name, 1.0, own_share)
            parts["total"] = parts["total"] + weight * parts[f"{name}_label"]
            if share := back[name]:
                others = [detached(targets[other]) for other in logits if other != name]
                for loss_name, loss in self.objective.transfer.items():
                    terms = [loss(Answer(logits=logits[name]), other, batch) for other in others]
                    parts[f"{name}_{loss_name}"] = sum(terms) / len(terms)
                    parts["total"] = parts["total"] + share * loss.weight * parts[f"{name}_{loss_name}"]
        return parts

    def _targets(
        self, batch: Batch, logits: Mapping[str, Tensor], to_student: bool, to_partners: bool
    ) -> dict[str, Answer]:
        """Compute the outputs from which the student learns, the partners learn, or both."""
        if not self.options.clean_targets:
            return {name: Answer(logits=value) for name, value in logits.items()}
        targets = {}
        with torch.no_grad():
            if to_partners:
                with evaluating(self.student):
                    targets["student"] = Answer(logits=self.logits(batch))
            if to_student or to_partners:
                with evaluating(self.partners):
                    targets |= {name: Answer(logits=self.partner_logits(name, batch)) for name in self.partners}
        return targets

    @torch.no_grad()
    def on_fit_start(self) -> None:
        """Measure the accuracy of the partners before the training."""
        if not self.accuracy_before.isnan().all():
            return
        with evaluating(self.partners):
            for place, (name, accuracy) in enumerate(self.partner_accuracy.items()):
                for batch in self.data.val_dataloader():
                    batch = {key: value.to(self.device) for key, value in batch.items()}
                    accuracy.update(self.partner_logits(name, batch), batch["labels"])
                self.accuracy_before[place] = accuracy.compute()
                accuracy.reset()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        super().validation_step(batch, batch_index)
        for name, accuracy in self.partner_accuracy.items():
            accuracy.update(self.partner_logits(name, batch), batch["labels"])
            self.log(f"val/{name}_accuracy", accuracy, batch_size=len(batch["index"]))

    def on_validation_epoch_end(self) -> None:
        rows = len(self.data.validation)
        for before, (name, accuracy) in zip(self.accuracy_before.tolist(), self.partner_accuracy.items(), strict=True):
            now = accuracy.compute().item()
            if self.trainer.is_global_zero and now < before - 2 * math.sqrt(before * (1 - before) / rows):
                log.warning(
                    "joint training makes the %s worse: validation accuracy %.3f, and %.3f before; lower "
                    "method.partner_learning_rate or method.partner_alpha, or set method.flow=false",
                    *(name, now, before),
                )

    def parameter_groups(self) -> list[dict]:
        groups = decay_groups(self.student, self.objective)
        for name, partner in self.partners.items():
            rate = chosen(self.options.partner_learning_rate, name, 1e-5, None)
            own = decay_groups(partner, lr=rate, weight_decay=self.options.partner_weight_decay)
            groups += [{**group, "teacher": name == TEACHER} for group in own]
        return groups

    def learning_rates(self, optimizer: Optimizer) -> LRScheduler:
        """Return the schedule of the student for its parameter groups, and the partners' for the teacher's."""
        schedules = self.recipe.schedule, self.options.partner_schedule
        own, partner = (factors(make, self.total_steps) for make in schedules)
        return LambdaLR(optimizer, [partner if group.get("teacher") else own for group in optimizer.param_groups])


def chosen(value: float | None, name: str, teacher: float, peer: float | None) -> float | None:
    """Return an option of a partner; where it is None, the default of a teacher or of a peer."""
    return value if value is not None else teacher if name == TEACHER else peer


def require_rest_at_agreement(name: str, loss: Loss, num_labels: int) -> None:
    """Refuse a term that changes a partner even where it agrees with the student.

    With ``flow``, such a term drives both to one-hot outputs. A cross-entropy does so through its first argument; a
    divergence or a distance does not.
    """
    own = torch.randn(16, num_labels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def pull(partner: Tensor) -> Tensor:
        partner = partner.clone().requires_grad_()
        term = loss.term(Answer(logits=own), Answer(logits=partner), {"labels": torch.arange(16) % num_labels})
        return torch.autograd.grad(term, partner)[0].norm()

    if pull(own) > 0.005 * pull(own.flip(0)):
        raise KDError(
            f"loss '{name}' changes a partner even where it agrees with the student, and with method.flow=true both "
            "would become one-hot; use soft_target, reverse_kl or jensen_shannon, or set method.flow=false"
        )
