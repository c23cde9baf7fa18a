"""The base of all methods: optimizer, metrics, checkpoints, and checks against NaN."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score
from transformers import PreTrainedModel

from kd.contract import IGNORED_LABEL, Batch
from kd.data.batch_weights import batch_shares, row_counts
from kd.data.batching import EncodedSplit
from kd.data.module import TextDataModule
from kd.errors import KDError, TrainingFailed
from kd.methods.objective import Objective
from kd.methods.optimizer import WithTables, clip_with_tables, with_tables
from kd.methods.sharding import FullySharded, shard

MakeOptimizer = Callable[[Iterable], Optimizer]
MakeSchedule = Callable[[Optimizer, int], LRScheduler]


@dataclass(frozen=True)
class Recipe:
    """The parts of a training that do not depend on the method.

    Args:
        label_loss: ``(logits [B, C], labels [B]) -> scalar``; rows labelled -100 do not count.
        optimizer: parameter groups -> optimizer.
        schedule: (optimizer, total steps) -> learning-rate schedule, stepped after every optimizer step.
        seed: sets dropout, together with the epoch and the rank, so that a resumed run equals an uninterrupted one.
    """

    label_loss: nn.Module
    optimizer: MakeOptimizer
    schedule: MakeSchedule
    seed: int = 0


class Method(lightning.LightningModule, ABC):
    """A way to train a student; the student is what is saved. Subclasses define the loss."""

    reads_teacher: ClassVar[bool]
    """Whether training needs a second model."""

    takes_steps: ClassVar[bool] = True
    """Whether an optimizer trains the student. A method that fits it in another way, at once, says False."""

    unsaved: tuple[str, ...] = ()
    """Prefixes of the names of weights that never change and are left out of checkpoints."""

    def __init__(self, student: PreTrainedModel, recipe: Recipe):
        super().__init__()
        # from_pretrained returns a model in evaluation mode, and Lightning does not change the mode.
        self.student, self.label_loss, self.recipe = student.train(), recipe.label_loss, recipe
        classes: dict[str, Any] = {"num_classes": student.config.num_labels, "ignore_index": IGNORED_LABEL}
        self.accuracy = MulticlassAccuracy(average="micro", **classes)
        others: dict[str, Metric | MetricCollection] = {
            "macro_f1": MulticlassF1Score(average="macro", **classes),
            "balanced_accuracy": MulticlassAccuracy(average="macro", **classes),
        }
        self.other_metrics = MetricCollection(others, prefix="val/")
        self.auroc = MulticlassAUROC(average="macro", **classes)
        self.validation_loss = MeanMetric()
        self.curves: dict[str, Tensor | float] = {}
        # Weights of the batches of this epoch (`kd.data.batch_weights`); None where each batch is an optimizer step.
        self.shares: np.ndarray | None = None
        self.label_share = 1.0
        self.step_curves: dict[str, Tensor] = {}

    def learners(self) -> list[nn.Module]:
        """Return the modules that learn; sharding treats each as a whole.

        Each of them must read all outputs that another one passes to it: under sharding, an output that is not read
        gets a gradient of 0, where without sharding it has none.
        """
        return [self.student]

    def configure_model(self) -> None:
        """Shard the modules that learn, if the strategy is `FullySharded`."""
        if isinstance(self.trainer.strategy, FullySharded):
            shard(self.learners(), self.trainer.strategy.mesh)

    @classmethod
    def require(cls, objective: Objective, options: Any, *arguments: Any, **named: Any) -> None:
        """Refuse terms and options that the method cannot use."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute ``total`` and its terms for a training batch, each a scalar.

        Other values to log are written to ``self.curves``.
        """

    def logits(self, batch: Batch) -> Tensor:
        """Compute the student's logits ``[B, C]``."""
        return logits_of(self.student, batch)

    @property
    def data(self) -> TextDataModule:
        """Return the rows of the fit."""
        return self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it

    @property
    def progress(self) -> float:
        """Return the share of the optimizer steps that are done, in [0, 1]."""
        return min(1.0, self.global_step / self.total_steps) if self.global_step else 0.0

    @cached_property
    def total_steps(self) -> int:
        """Return the number of optimizer steps of the whole run."""
        return int(self.trainer.estimated_stepping_batches)

    def label_term(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the label loss; its sum over the batches of a step is the mean over the step's labelled rows."""
        return self.label_loss(logits, batch["labels"]) * self.label_share

    def on_train_epoch_start(self) -> None:
        self.shares, self.step_curves = self._shares(), {}
        entropy = np.random.SeedSequence([self.recipe.seed, self.current_epoch, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))

    def _shares(self) -> np.ndarray | None:
        trainer = self.trainer
        accumulate = trainer.accumulate_grad_batches
        if trainer.world_size * accumulate == 1:
            return None
        sampler, count = cast(Any, trainer.train_dataloader).sampler, int(trainer.num_training_batches)
        batches = sampler.global_batches()
        if batches is None:  # the rows of a streamed split are not known yet: the sampler fills in the weights later
            return sampler.follow(accumulate, count)
        labels = cast(EncodedSplit, self.data.train).labels
        counts = [row_counts(labels[rows], labels[sampler.own(rows)]) for rows in batches[:count]]
        return batch_shares(counts, accumulate, trainer.world_size)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        share, self.label_share = (1.0, 1.0) if self.shares is None else self.shares[batch_index]
        parts = self.losses(batch)
        total = parts["total"]
        if not torch.isfinite(total):
            values = ", ".join(f"{name}={part.item():.4g}" for name, part in parts.items())
            raise TrainingFailed(
                f"the loss of training rows {batch['index'].tolist()} is not finite at step {self.global_step} "
                f"({values}); lower optim.optimizer.lr or the loss weights, or use trainer.precision=32-true"
            )
        # Logging takes longer than a step of a small student, so only the steps that Lightning writes are logged.
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it
        if (self.global_step + 1) % every == 0:
            self._log(parts, share, batch_index)
        return total if self.shares is None else total * share

    def _log(self, parts: Mapping[str, Tensor], share: float, batch_index: int) -> None:
        """Log the terms of an optimizer step at its last batch, over all its batches and ranks."""
        accumulate = self.trainer.accumulate_grad_batches
        for name, part in parts.items():
            value = part.detach() if self.shares is None else part.detach() * (share / accumulate)
            self.step_curves[name] = self.step_curves[name] + value if name in self.step_curves else value
        if (batch_index + 1) % accumulate and batch_index + 1 < self.trainer.num_training_batches:
            return
        losses = {f"train/loss/{name}": value for name, value in self.step_curves.items()}
        others = {f"train/{name}": float(value) for name, value in self.curves.items()}
        self.log_dict({**losses, **others}, batch_size=1, sync_dist=self.trainer.world_size > 1)
        self.step_curves = {}

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        logits = self.logits(batch)
        if not torch.isfinite(logits).all():  # otherwise a checkpoint of such weights could replace a good one
            raise TrainingFailed(
                f"the student's logits for validation rows {batch['index'].tolist()[:10]} are not finite after step "
                f"{self.global_step}; lower optim.optimizer.lr or the loss weights, or use trainer.precision=32-true"
            )
        labelled = batch["labels"] != IGNORED_LABEL
        self.validation_loss.update(self.label_loss(logits, batch["labels"]).detach(), labelled.sum())
        self.accuracy.update(logits, batch["labels"])
        self.other_metrics.update(logits, batch["labels"])
        self.auroc.update(logits.float().softmax(dim=1), batch["labels"])
        self.log("val/accuracy", self.accuracy, prog_bar=True, batch_size=len(logits))
        self.log_dict(self.other_metrics, batch_size=len(logits))
        self.log("val/auroc", self.auroc, batch_size=len(logits))
        self.log("val/loss", self.validation_loss, batch_size=len(logits))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.new_optimizer()
        schedule = self.learning_rates(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def new_optimizer(self) -> Optimizer:
        """Return a new optimizer of `parameter_groups`. Call it when the weights are on their device."""
        return with_tables(self, self.parameter_groups(), self.recipe.optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if isinstance(optimizer, WithTables) and gradient_clip_val:
            clip_with_tables(optimizer, gradient_clip_val, gradient_clip_algorithm or "norm")
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def parameter_groups(self) -> list[dict]:
        """Return the parameters that the optimizer trains, with options for each group."""
        return decay_groups(self)

    def learning_rates(self, optimizer: Optimizer) -> LRScheduler:
        """Return the learning-rate schedule of an optimizer."""
        return self.recipe.schedule(optimizer, self.total_steps)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        for name in [name for name in checkpoint["state_dict"] if name.startswith(self.unsaved)]:
            del checkpoint["state_dict"][name]
        for logger in self.trainer.loggers:  # a run that is resumed from here does not log these epochs again
            logger.save()

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        """Load weights as torch does, but allow that those in `unsaved` are missing; refuse those of another model."""
        try:
            found = super().load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:
            raise KDError(
                f"the checkpoint is of another model ({' '.join(str(error).split())[:200]}); train from scratch with "
                "rerun=true"
            ) from error
        lacking = [name for name in found.missing_keys if not name.startswith(self.unsaved)]
        if strict and (lacking or found.unexpected_keys):
            raise KDError(
                f"the checkpoint is of another model: it lacks {lacking[:3]} and has {found.unexpected_keys[:3]}; "
                "train from scratch with rerun=true"
            )
        return found


def run_fit(trainer: lightning.Trainer, method: Method, data: lightning.LightningDataModule, **options: Any) -> None:
    """Call ``trainer.fit`` and translate its exceptions.

    Raises:
        KeyboardInterrupt: after Ctrl-C, for which Lightning raises SystemExit.
        SystemExit: with code 143 after SIGTERM.
        KDError: Lightning refuses the configuration.
    """
    try:
        trainer.fit(method, data, **options)
    except SIGTERMException:
        raise SystemExit(143) from None
    except SystemExit:
        raise KeyboardInterrupt from None
    except MisconfigurationException as error:
        raise KDError(f"Lightning refuses: {' '.join(str(error).split())}") from error


def factors(make_schedule: MakeSchedule, total_steps: int) -> Callable[[int], float]:
    """Return the factor by which a schedule multiplies the learning rate, as a function of the step."""
    schedule: Any = make_schedule(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), total_steps)  # a LambdaLR
    return schedule.lr_lambdas[0]


def decay_groups(*modules: nn.Module, **options: float | None) -> list[dict]:
    """Return two parameter groups: matrices have the optimizer's weight decay, biases and norms have none.

    Args:
        modules: contain the parameters; frozen ones are left out.
        options: of both groups, such as ``lr``; None: as the optimizer sets it.
    """
    given = {name: value for name, value in options.items() if value is not None}
    parameters = [parameter for module in modules for parameter in trained(module)]
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], **given},
        {"params": [each for each in parameters if each.ndim <= 1], **given, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


LEAST_CHANGE = 1e-7
"""The least change of the weights by a training, as a part of their length. Rounding to 32 bits is as large."""


def copies(method: Method) -> list[Tensor]:
    """Return a copy of the student's weights that will be trained; none if no optimizer trains them."""
    return [weight.detach().cpu().clone() for weight in trained(method.student)] if method.takes_steps else []


def require_trained(method: Method, before: list[Tensor], steps: int) -> None:
    """Refuse a training that has changed nothing: its accuracy would be that of the initial weights.

    Args:
        method: after the training.
        before: the `copies` from before it.
        steps: of the optimizer.

    Raises:
        KDError: the optimizer has made no step, or has left the weights as they were.
    """
    if not method.takes_steps:
        return
    if not steps:
        raise KDError("expected a training, found no optimizer step; raise trainer.max_epochs, or give more rows")
    pairs = zip(before, trained(method.student), strict=True)
    change = math.hypot(*(float((after.detach().cpu() - start).double().norm()) for start, after in pairs))
    length = math.hypot(*(float(start.double().norm()) for start in before))
    if not change > LEAST_CHANGE * length:
        raise TrainingFailed(
            f"expected a training that changes the student, found weights as before it after {steps} steps (their "
            f"change is {change:.1g} of a length of {length:.3g}); raise optim.optimizer.lr, or choose another optim"
        )


def inputs_of(batch: Batch, prefix: str = "") -> Batch:
    """Return what a model reads: the token ids and their mask ``[B, L]``."""
    return {name: batch[prefix + name] for name in ("input_ids", "attention_mask")}


def logits_of(model: nn.Module, batch: Batch, **inputs: Tensor) -> Tensor:
    """Compute a model's logits ``[B, C]`` for a batch, with further inputs."""
    return model(**inputs_of(batch), **inputs).logits
