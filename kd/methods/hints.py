"""Hints: the student's inner states are mapped into the teacher's space and compared there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import cast, final

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.contract import ATTENTION_OUTPUTS, Answer, Batch, FeatureLoss
from kd.data.batching import EncodedSplit
from kd.errors import KDError
from kd.features.attention import prepare
from kd.features.feature import Feature, inner
from kd.features.matching import Matching
from kd.methods.base import Recipe, decay_groups, factors, inputs_of, trained
from kd.methods.distillation import Source, TaughtMethod, cached_teacher, require_losses
from kd.methods.objective import Objective
from kd.methods.weighting import ConstantWeighting
from kd.options.methods import HintsOptions

log = logging.getLogger(__name__)

FIT_ROWS = 4096
"""The largest number of training rows on which a closed-form mapper is fitted."""


@final
class Hints(TaughtMethod):
    """Train the student with its inner states mapped into the teacher's space and compared there.

    ``(1 - alpha) * label_loss + alpha * sum_i weight_i * loss_i``. With ``feature_epochs`` there are two stages: first
    ``sum_i weight_i * loss_i`` over the feature losses alone; then the task, with all other terms, and with the
    feature losses only if ``keep_features`` is true.

    Args:
        matchings: the pairs of layers and the mappers of the feature losses, by teacher; with several teachers each
            feature loss is the mean over them.

    Source: Romero et al. 2015 (FitNets), https://arxiv.org/abs/1412.6550; Jiao et al. 2020 (TinyBERT),
    https://arxiv.org/abs/1909.10351
    """

    options: HintsOptions
    default_options = HintsOptions()

    def __init__(
        self,
        student: PreTrainedModel,
        recipe: Recipe,
        objective: Objective,
        matchings: Mapping[str, Matching],
        teacher: Source = cached_teacher,
        options: HintsOptions | None = None,
    ):
        super().__init__(student, recipe, objective, teacher, options)
        self.matchings = cast(Mapping[str, Matching], nn.ModuleDict(matchings))
        self.feature_losses = {name for matching in matchings.values() for name in matching.losses}
        self.features = {feature for matching in matchings.values() for feature in matching.features}
        self.outputs = {output for matching in matchings.values() for output in matching.outputs}
        self.logged_stage = ""
        if self.outputs & ATTENTION_OUTPUTS:
            prepare(student)

    @classmethod
    def require(cls, objective: Objective, options: HintsOptions) -> None:
        """Refuse an objective without a feature loss, and stages that contradict the other options."""
        require_losses("hints", objective)
        features = [name for name, loss in objective.transfer.items() if isinstance(loss, FeatureLoss)]
        if not features:
            raise KDError(
                f"method=hints needs a loss on features, found only {', '.join(objective.transfer)}; add one, as in "
                "loss=[soft_target,hint], or use method=distillation"
            )
        if options.keep_features and not options.feature_epochs:
            raise KDError("method.keep_features=true needs two stages, found method.feature_epochs=0; set both")
        if not options.feature_epochs or isinstance(objective.weighting, ConstantWeighting):
            return
        task = ["label", *(name for name in objective.transfer if options.keep_features or name not in features)]
        if max(len(features), len(task)) < 2:
            raise KDError(
                f"balance/weighting balances terms against each other, found '{features[0]}' alone in the feature "
                f"stage and '{task[0]}' alone in the task stage; add a loss, or set balance/weighting=constant"
            )

    def learners(self) -> list[nn.Module]:
        return [*super().learners(), *(part for matching in self.matchings.values() for part in matching.learners())]

    @property
    def in_feature_stage(self) -> bool:
        return self.current_epoch < self.options.feature_epochs

    def on_fit_start(self) -> None:
        if self.options.feature_epochs and self.feature_steps >= self.total_steps:
            raise KDError(
                f"method.feature_epochs={self.options.feature_epochs} takes {self.feature_steps} steps and leaves none "
                f"of the run's {self.total_steps} for the task; lower it, or train longer"
            )
        for matching in self.matchings.values():
            if matching.unfitted():
                log.info("mapper: fitting on at most %d training rows", FIT_ROWS)
                matching.fit_mappers(self._answers())

    @property
    def feature_steps(self) -> int:
        """Return the number of optimizer steps of the feature stage."""
        self.trainer.fit_loop.setup_data()  # counts the batches, which Lightning skips if only max_steps is given
        batches, accumulated = int(self.trainer.num_training_batches), self.trainer.accumulate_grad_batches
        return self.options.feature_epochs * -(-batches // accumulated)

    def learning_rates(self, optimizer: Optimizer) -> LRScheduler:
        """Return the schedule. It starts again with the second stage, so that the head has a warm-up too."""
        if not 0 < self.feature_steps < self.total_steps:
            return super().learning_rates(optimizer)
        first = self.feature_steps
        of_stage = [factors(self.recipe.schedule, steps) for steps in (first, self.total_steps - first)]
        return LambdaLR(optimizer, lambda step: of_stage[0](step) if step < first else of_stage[1](step - first))

    @torch.no_grad()
    def _answers(self) -> Iterator[tuple[SequenceClassifierOutput, dict[Feature, Tensor], Tensor]]:
        self.student.eval()
        for batch in fitting_batches(cast(EncodedSplit, self.data.train), self.recipe.seed):
            batch = {name: value.to(self.device) for name, value in batch.items()}
            output, _ = inner(self.student, inputs_of(batch), self.outputs)
            yield output, self.teacher(batch, self.features)[1], batch["attention_mask"]
        self.student.train()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if not self.options.feature_epochs:
            return
        stage = "features" if self.in_feature_stage else "task"
        if stage != self.logged_stage:
            log.info("stage: %s", stage)
            self.logged_stage = stage
        if self.current_epoch == self.options.feature_epochs:
            forget_the_best(self.trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        progress, names = self.progress, self._taking_part()
        needed = bool(names) and (self.in_feature_stage or self.objective.needs_teacher(progress))
        matches = needed and bool(self.feature_losses & set(names))
        output, attention = inner(self.student, inputs_of(batch), self.outputs if matches else ())
        label = self.label_term(output.logits, batch)
        answers: dict[str, list[tuple[Answer, Answer]]] = {}
        if needed:
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
        """Return the names of the transfer terms of the present stage."""
        names = list(self.objective.transfer)
        if self.in_feature_stage:
            return [name for name in names if name in self.feature_losses]
        if self.options.keep_features or not self.options.feature_epochs:
            return names
        return [name for name in names if name not in self.feature_losses]

    def parameter_groups(self) -> list[dict]:
        mappers = decay_groups(*self.matchings.values(), lr=self.options.mapper_learning_rate)
        return decay_groups(self.student, self.objective) + mappers


def fitting_batches(train: EncodedSplit, seed: int) -> Iterator[Batch]:
    """Yield at most `FIT_ROWS` training rows, drawn by the seed, on which a closed-form mapper is fitted."""
    rows = np.random.default_rng(seed).permutation(len(train))[:FIT_ROWS]
    for chunk in np.array_split(rows, max(1, len(rows) // 128)):
        yield train[chunk.tolist()]


def forget_the_best(callbacks: Iterable[lightning.Callback]) -> None:
    """Reset the best checkpoint and early stopping: the head was not trained before the task stage."""
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            callback.wait_count = 0
            callback.best_score = torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            callback.best_k_models.clear()
            callback.best_model_score, callback.best_model_path, callback.kth_best_model_path = None, "", ""
            callback.kth_value = torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)
