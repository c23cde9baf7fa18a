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

from kd.contract import ATTENTION_OUTPUTS, Answer, Batch, FeatureLoss
from kd.errors import KDError
from kd.features import attention as recording
from kd.features.feature import Feature, inner
from kd.features.matching import Matching
from kd.methods.base import decay_groups, factors
from kd.methods.distillation import Source, TaughtMethod, cached_teacher, require_losses, trained
from kd.methods.objective import Objective
from kd.methods.weighting import ConstantWeighting
from kd.options.methods import HintsOptions

log = logging.getLogger(__name__)

FIT_ROWS = 4096
"""Training rows that a closed-form mapper is fitted on, at most."""


@final
class Hints(TaughtMethod):
    """Train the student with its inner states mapped into the teacher's space and compared there.

    ``(1 - alpha) * label_loss + alpha * sum_i weight_i * loss_i``; in the first ``feature_epochs`` only
    ``sum_i weight_i * loss_i`` over the feature losses, after that the task: all other terms, and the feature losses
    only with ``keep_features``.

    Args:
        objective: the transfer terms and their balance.
        matchings: the pairs of layers and the mappers of the feature losses, by teacher; with several teachers each
            feature loss is the mean over them.
        teacher: see `kd.methods.distillation`; it gives the matchings' features.
        options: see `HintsOptions`.
        student, label_loss, optimizer, schedule, seed: see `Method`.

    Raises:
        KDError: see `require`; or a feature stage that is as long as the whole training.

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
        options: HintsOptions = HintsOptions(),  # noqa: B008  it is frozen
        seed: int = 0,
    ):
        super().__init__(student, label_loss, optimizer, schedule, seed)
        self.require(objective, options)
        self.matchings = nn.ModuleDict(matchings)
        self.feature_losses = {name for matching in matchings.values() for name in matching.losses}
        self.features = frozenset().union(*(matching.features for matching in matchings.values()))
        self.outputs = set().union(*(matching.outputs for matching in matchings.values()))
        self.objective, self.teacher, self.options = objective, teacher, options
        self.logged_stage: str | None = None
        if self.outputs & ATTENTION_OUTPUTS:
            recording.prepare(student)

    @classmethod
    def require(cls, objective: Objective, options: HintsOptions) -> None:
        """Refuse an objective without a feature loss, and stages that make no sense.

        Raises:
            KDError: saying what is missing.
        """
        require_losses("hints", objective)
        features = {name for name, loss in objective.transfer.items() if isinstance(loss, FeatureLoss)}
        if not features:
            raise KDError(
                f"method=hints needs a loss on features, found only {', '.join(objective.transfer)}; add one, as in "
                "loss=[soft_target,hint], or use method=distillation"
            )
        if options.keep_features and not options.feature_epochs:
            raise KDError("method.keep_features=true needs two stages, found method.feature_epochs=0; set both")
        if options.feature_epochs:
            require_balance(objective, features, options.keep_features)

    def learners(self) -> list[nn.Module]:
        return [*super().learners(), *(part for matching in self.matchings.values() for part in matching.learners())]

    @property
    def in_feature_stage(self) -> bool:
        return self.current_epoch < self.options.feature_epochs

    @property
    def stage(self) -> str:
        """What is learnt in this epoch."""
        return "features" if self.in_feature_stage else "task"

    def on_fit_start(self) -> None:
        if self.options.feature_epochs and self.feature_steps >= self.total_steps:
            raise KDError(
                f"method.feature_epochs={self.options.feature_epochs} takes {self.feature_steps} steps and leaves none "
                f"of the run's {self.total_steps} for the task; lower it, or train longer"
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
        return self.options.feature_epochs * -(-batches // accumulated)

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
        if self.options.feature_epochs and (self.stage != self.logged_stage):
            log.info("stage: %s", self.stage)
            self.logged_stage = self.stage
        if self.options.feature_epochs and self.current_epoch == self.options.feature_epochs:
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
        if self.options.feature_epochs:
            self.curves["stage"] = 1 if self.in_feature_stage else 2
        return parts

    def _taking_part(self) -> list[str]:
        """The transfer terms of the present stage."""
        if not self.options.feature_epochs:
            return list(self.objective.transfer)
        if self.in_feature_stage:
            return [name for name in self.objective.transfer if name in self.feature_losses]
        return [
            name for name in self.objective.transfer if self.options.keep_features or name not in self.feature_losses
        ]

    def parameter_groups(self) -> list[dict]:
        mappers = decay_groups(self.matchings, lr=self.options.mapper_learning_rate)
        return decay_groups(self.student, self.objective) + mappers


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
