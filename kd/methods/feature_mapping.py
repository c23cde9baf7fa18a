"""Feature mapping: the teacher's inner outputs in the student's input, or the student's drawn to the teacher's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import final

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.contract import ATTENTION_OUTPUTS, Answer, Batch
from kd.errors import KDError
from kd.features import attention as recording
from kd.features.feature import Feature, inner
from kd.features.matching import Matching
from kd.methods.base import decay_groups, factors, student_output
from kd.methods.distillation import LogitMethod, Source, TaughtMethod, cached_teacher, require_losses, trained
from kd.methods.objective import Objective
from kd.methods.weighting import ConstantWeighting

log = logging.getLogger(__name__)

FIT_ROWS = 4096
"""Training rows that a closed-form mapper is fitted on, at most."""


@final
class ToTeacher(TaughtMethod):
    """Hints: the student's features are mapped into the teacher's space and matched; the teacher stays behind.

    ``(1 - alpha) * label_loss + alpha * sum_i weight_i * loss_i``; for the first ``feature_epochs`` only
    ``sum_i weight_i * loss_i`` over the feature losses, after that the task: all other terms, and the feature losses
    only with ``keep_features``.

    Args:
        objective: the transfer terms and their balance.
        matchings: the pairs of layers and the mappers of the feature losses, by teacher; with several teachers each
            feature loss is the mean over them.
        teacher: see `kd.methods.distillation`; it is asked for the matchings' features.
        mapper_learning_rate: of the mappers; None: the optimizer's own.
        feature_epochs: length of the feature stage; 0 for one stage with everything.
        keep_features: whether feature losses go on in the task stage.
        student, label_loss, optimizer, schedule, seed: see `Method`.

    Raises:
        KDError: no feature loss, or a feature stage that is as long as the whole training.

    Source: Romero et al. 2015 (FitNets), https://arxiv.org/abs/1412.6550; Jiao et al. 2020 (TinyBERT),
    https://arxiv.org/abs/1909.10351
    """

    def __init__(
        self,
        student: PreTrainedModel,
        label_loss: nn.Module,
        optimizer: Callable[[Iterable], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        objective: Objective,
        matchings: Mapping[str, Matching],
        teacher: Source = cached_teacher,
        mapper_learning_rate: float | None = None,
        feature_epochs: int = 0,
        keep_features: bool = False,
        seed: int = 0,
    ):
        super().__init__(student, label_loss, optimizer, schedule, seed)
        require_losses("feature_mapping", objective)
        self.matchings = nn.ModuleDict(matchings)
        self.feature_losses = {name for matching in matchings.values() for name in matching.losses}
        self.features = frozenset().union(*(matching.features for matching in matchings.values()))
        self.outputs = set().union(*(matching.outputs for matching in matchings.values()))
        if not self.feature_losses:
            raise KDError(
                "method.direction=to_teacher needs a loss that reads features, found only "
                f"{', '.join(objective.transfer)}; add one, as in loss=[soft_target,hint]"
            )
        self.objective, self.teacher = objective, teacher
        self.mapper_learning_rate = mapper_learning_rate
        self.feature_epochs, self.keep_features = feature_epochs, keep_features
        if feature_epochs:
            require_balance(objective, self.feature_losses, keep_features)
        self.logged_stage: str | None = None
        if self.outputs & ATTENTION_OUTPUTS:
            recording.prepare(student)

    def learners(self) -> list[nn.Module]:
        return [*super().learners(), *(part for matching in self.matchings.values() for part in matching.learners())]

    @property
    def in_feature_stage(self) -> bool:
        return self.current_epoch < self.feature_epochs

    @property
    def stage(self) -> str:
        """What is learnt in this epoch."""
        return "features" if self.in_feature_stage else "task"

    def on_fit_start(self) -> None:
        if 0 < (self.trainer.max_epochs or -1) <= self.feature_epochs:
            raise KDError(
                f"method.feature_epochs={self.feature_epochs} leaves none of trainer.max_epochs="
                f"{self.trainer.max_epochs} for the task; lower the one or raise the other"
            )
        if self.feature_epochs and self.feature_steps >= self.total_steps:
            raise KDError(
                f"method.feature_epochs={self.feature_epochs} takes {self.feature_steps} steps and leaves none of the "
                f"run's {self.total_steps} for the task; lower it, or train longer"
            )
        for matching in self.matchings.values():
            if matching.waits():
                log.info("mapper: fitting on at most %d training rows", FIT_ROWS)
                matching.fit_mappers(self._answers())

    @property
    def feature_steps(self) -> int:
        """Optimizer steps of the feature stage."""
        self.trainer.fit_loop.setup_data()  # counts the batches, which max_steps alone does not ask for
        batches, accumulated = self.trainer.num_training_batches, self.trainer.accumulate_grad_batches
        return self.feature_epochs * -(-batches // accumulated)

    def learning_rates(self, optimizer: Optimizer) -> LRScheduler:
        """The schedule; over each stage anew where there are two, so that the head is warmed up too."""
        if not 0 < self.feature_steps < self.total_steps:
            return super().learning_rates(optimizer)
        first = self.feature_steps
        of_stage = [factors(self.make_schedule, steps) for steps in (first, self.total_steps - first)]
        return LambdaLR(optimizer, lambda step: of_stage[0](step) if step < first else of_stage[1](step - first))

    @torch.no_grad()
    def _answers(self) -> Iterator[tuple[SequenceClassifierOutput, dict[Feature, Tensor], Tensor]]:
        self.student.eval()
        for batch in fitting_batches(self.trainer.datamodule.train, self.seed):
            batch = {name: value.to(self.device) for name, value in batch.items()}
            output, _ = inner(self.student, _inputs(batch), self.outputs)
            yield output, self.teacher(batch, self.features)[1], batch["attention_mask"]
        self.student.train()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.feature_epochs and (self.stage != self.logged_stage):
            log.info("stage: %s", self.stage)
            self.logged_stage = self.stage
        if self.feature_epochs and self.current_epoch == self.feature_epochs:
            forget_the_best(self.trainer.callbacks)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        progress, names = self.progress, self._taking_part()
        asks = bool(names) and (self.in_feature_stage or self.objective.asks_teacher(progress))
        matches = asks and bool(self.feature_losses & set(names))
        output, attention = inner(self.student, _inputs(batch), self.outputs if matches else ())
        label = self.label_term(output.logits, batch)
        answers: dict[str, list[tuple[Answer, Answer]]] = {}
        if asks:
            logits, found = self.teacher(batch, self.features if matches else ())
            answers = {name: [] for name in names}
            for matching in self.matchings.values() if matches else ():
                matched = matching(output, attention, logits, found, batch["attention_mask"])
                for name, pair in matched.items():
                    answers[name].append(pair)
            plain = [(Answer(logits=output.logits), Answer(logits=logits))]
            answers = {name: pairs or plain for name, pairs in answers.items()}
        alpha = 1.0 if self.in_feature_stage else None
        parts, self.curves = self.objective(label, answers, batch, progress, lambda: trained(self.student), alpha)
        if self.feature_epochs:
            self.curves["stage"] = 1 if self.in_feature_stage else 2
        return parts

    def _taking_part(self) -> list[str]:
        """The transfer terms of the present stage."""
        if not self.feature_epochs:
            return list(self.objective.transfer)
        if self.in_feature_stage:
            return [name for name in self.objective.transfer if name in self.feature_losses]
        return [name for name in self.objective.transfer if self.keep_features or name not in self.feature_losses]

    def parameter_groups(self) -> list[dict]:
        mappers = decay_groups(self.matchings, lr=self.mapper_learning_rate)
        return decay_groups(self.student, self.objective) + mappers


@final
class ToStudent(LogitMethod):
    """The teacher's output vectors, mapped into the student's input space in place of its own embeddings.

    The student is the composition: cut teacher (frozen), mapper, small body. Where batches carry the teacher's
    features from the cache, the teacher itself does not run.

    Args:
        student: a `kd.models.composition.ComposedStudent`.
        objective: the transfer terms, which may be none, and their balance.
        column: what the body reads, as the cache calls it.
        teacher: see `kd.methods.distillation`; asked for logits where there are transfer terms.
        mapper_learning_rate: of the mapper; None: the optimizer's own.
        label_loss, optimizer, schedule, seed: see `Method`.

    Raises:
        KDError: a transfer term that reads features.
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
        mapper_learning_rate: float | None = None,
        seed: int = 0,
    ):
        super().__init__(student, label_loss, optimizer, schedule, seed)
        for name, loss in objective.transfer.items():
            if loss.needs != {"logits"}:
                raise KDError(
                    f"loss '{name}' matches layers, and with method.direction=to_student the teacher's layers are the "
                    "student's input; use logit losses, loss=[], or method.direction=to_teacher"
                )
        self.objective, self.column, self.teacher = objective, column, teacher
        self.mapper_learning_rate = mapper_learning_rate

    def answer(self, batch: Batch) -> SequenceClassifierOutput:
        features = batch.get(f"teacher_{self.column}")
        return student_output(self.student, batch, **({} if features is None else {"features": features}))

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Put the frozen encoder beside what was saved: weight averaging looks for it there."""
        encoder = {name: value for name, value in self.state_dict().items() if name.startswith(self.unsaved)}
        checkpoint["state_dict"] = encoder | checkpoint["state_dict"]

    def parameter_groups(self) -> list[dict]:
        mapper = decay_groups(self.student.mapper, lr=self.mapper_learning_rate)
        return decay_groups(self.student.body, self.objective) + mapper


def require_balance(objective: Objective, feature_losses: Collection[str], keep_features: bool) -> None:
    """Refuse a weighting that would find one term alone in each stage.

    Raises:
        KDError: naming the terms.
    """
    if isinstance(objective.weighting, ConstantWeighting):
        return
    features = [name for name in objective.transfer if name in feature_losses]
    task = ["label", *(name for name in objective.transfer if keep_features or name not in feature_losses)]
    if max(len(features), len(task)) < 2:
        raise KDError(
            f"balance/weighting balances terms against each other, found '{features[0]}' alone in the feature stage "
            f"and '{task[0]}' alone in the task stage; add a loss, or set balance/weighting=constant"
        )


def fitting_batches(train: Dataset, seed: int) -> Iterator[Batch]:
    """At most `FIT_ROWS` training rows, drawn by the seed, for a closed-form mapper."""
    rows = np.random.default_rng(seed).permutation(len(train))[:FIT_ROWS]
    for chunk in np.array_split(rows, max(1, len(rows) // 128)):
        yield train[chunk]


def forget_the_best(callbacks: Iterable[lightning.Callback]) -> None:
    """Let best checkpoint and early stopping begin anew: before the task stage the head knew nothing."""
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            callback.wait_count = 0
            callback.best_score = torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            callback.best_k_models.clear()
            callback.best_model_score, callback.best_model_path, callback.kth_best_model_path = None, "", ""
            callback.kth_value = torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)


def _inputs(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


to_teacher, to_student = ToTeacher, ToStudent  # as conf/method/feature_mapping.yaml names the directions
