"""What the methods have in common: the optimizer, the metrics, the guard against NaN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import ClassVar

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.contract import IGNORED_LABEL, Batch
from kd.data.batch_weights import batch_shares, row_counts
from kd.errors import KDError
from kd.methods.sharding import FullySharded, shard


class Method(lightning.LightningModule, ABC):
    """A way to train a student; subclasses say which transfer terms there are.

    Args:
        student: the model that is trained and saved.
        label_loss: ``(logits [B, C], labels [B]) -> scalar``; rows labelled -100 do not count.
        optimizer: parameter groups -> optimizer.
        schedule: (optimizer, total steps) -> learning-rate schedule, stepped after every optimizer step.
        seed: with the epoch and the rank it decides dropout, so that a resumed run repeats an unbroken one.
    """

    reads_teacher: ClassVar[bool]
    """Whether training asks a teacher."""

    unsaved: tuple[str, ...] = ()
    """Beginnings of the names of weights that never change and stay out of checkpoints."""

    def __init__(
        self,
        student: PreTrainedModel,
        label_loss: nn.Module,
        optimizer: Callable[[Iterable], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        seed: int = 0,
    ):
        super().__init__()
        # from_pretrained gives a model in evaluation mode, and Lightning trains it in the mode it finds.
        self.student, self.label_loss = student.train(), label_loss
        self.make_optimizer, self.make_schedule, self.seed = optimizer, schedule, seed
        self.accuracy = MulticlassAccuracy(student.config.num_labels, average="micro", ignore_index=IGNORED_LABEL)
        self.validation_loss = MeanMetric()
        self.curves: dict[str, Tensor | float] = {}
        self.shares: np.ndarray | None = None  # of each batch of the epoch; None where each is a step of its own
        self.label_share = 1.0
        self.step_curves: dict[str, Tensor] = {}

    def learners(self) -> list[nn.Module]:
        """The modules that learn, each of which computes by a call of its own.

        None of them may be given another one's output and leave a part of it unread: sharded, it would send back a
        gradient of 0 where there is none.
        """
        return [self.student]

    def configure_model(self) -> None:
        """Under `FullySharded`: cut what learns over the ranks."""
        if isinstance(self.trainer.strategy, FullySharded):
            shard(self.learners(), self.trainer.strategy.mesh)

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """All parts of the objective for a training batch, each a scalar: ``total`` and the logged terms.

        What else shall be logged goes into ``self.curves``.
        """

    def answer(self, batch: Batch) -> SequenceClassifierOutput:
        """The student's answer to a batch, where nothing is learnt."""
        return student_output(self.student, batch)

    @property
    def progress(self) -> float:
        """The share of the optimizer steps that are done, in [0, 1]."""
        return min(1.0, self.global_step / self.total_steps) if self.global_step else 0.0

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return int(self.trainer.estimated_stepping_batches)

    def label_term(self, logits: Tensor, batch: Batch) -> Tensor:
        """The label loss of the batch; summed over an optimizer step it is the mean over the step's labelled rows."""
        return self.label_loss(logits, batch["labels"]) * self.label_share

    def on_train_epoch_start(self) -> None:
        self.shares, self.step_curves = self._shares(), {}
        entropy = np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))

    def _shares(self) -> np.ndarray | None:
        trainer = self.trainer
        accumulate = trainer.accumulate_grad_batches
        if trainer.world_size * accumulate == 1:
            return None
        sampler, count = trainer.train_dataloader.sampler, int(trainer.num_training_batches)
        batches = sampler.global_batches()
        if batches is None:  # the rows are not known yet: the sampler says it while it makes the batches
            return sampler.follow(accumulate, count)
        labels = trainer.datamodule.train.labels
        counts = [row_counts(labels[rows], labels[sampler.own(rows)]) for rows in batches[:count]]
        return batch_shares(counts, accumulate, trainer.world_size)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        share, self.label_share = (1.0, 1.0) if self.shares is None else self.shares[batch_index]
        parts = self.losses(batch)
        total = parts["total"]
        if not torch.isfinite(total):
            values = ", ".join(f"{name}={part.item():.4g}" for name, part in parts.items())
            raise KDError(
                f"the loss of training rows {batch['index'].tolist()} is not finite at step {self.global_step} "
                f"({values}); lower optim.optimizer.lr or the loss weights, or use trainer.precision=32-true"
            )
        # Lightning's bookkeeping costs more than a small student's step: it is asked for only where it writes.
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            self._log(parts, share, batch_index)
        return total if self.shares is None else total * share

    def _log(self, parts: Mapping[str, Tensor], share: float, batch_index: int) -> None:
        """Log the terms of the whole optimizer step, over its batches and all ranks."""
        accumulate = self.trainer.accumulate_grad_batches
        for name, part in parts.items():
            value = part.detach() if self.shares is None else part.detach() * (share / accumulate)
            self.step_curves[name] = self.step_curves.get(name, 0.0) + value
        if (batch_index + 1) % accumulate and batch_index + 1 < self.trainer.num_training_batches:
            return
        curves = {f"train/loss/{name}": value for name, value in self.step_curves.items()}
        curves |= {f"train/{name}": float(value) for name, value in self.curves.items()}
        self.log_dict(curves, batch_size=1, sync_dist=self.trainer.world_size > 1)
        self.step_curves = {}

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        logits = self.answer(batch).logits
        if not torch.isfinite(logits).all():  # before a checkpoint of such weights replaces a good one
            raise KDError(
                f"the student's logits for validation rows {batch['index'].tolist()[:10]} are not finite after step "
                f"{self.global_step}; lower optim.optimizer.lr or the loss weights, or use trainer.precision=32-true"
            )
        labelled = batch["labels"] != IGNORED_LABEL
        self.validation_loss.update(self.label_loss(logits, batch["labels"]).detach(), labelled.sum())
        self.accuracy.update(logits, batch["labels"])
        self.log("val/accuracy", self.accuracy, prog_bar=True, batch_size=len(logits))
        self.log("val/loss", self.validation_loss, batch_size=len(logits))

    def configure_optimizers(self) -> dict:
        optimizer = self.make_optimizer(self.parameter_groups())
        schedule = self.learning_rates(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def parameter_groups(self) -> list[dict]:
        """What the optimizer trains."""
        return decay_groups(self)

    def learning_rates(self, optimizer: Optimizer) -> LRScheduler:
        """The schedule, stepped after every optimizer step."""
        return self.make_schedule(optimizer, self.total_steps)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        for name in [name for name in checkpoint["state_dict"] if name.startswith(self.unsaved)]:
            del checkpoint["state_dict"][name]
        for logger in self.trainer.loggers:  # a run that goes on from this checkpoint does not log these epochs again
            logger.save()

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        """As torch's, but what is `unsaved` may be absent.

        Raises:
            KDError: the weights are of another model.
        """
        try:
            found = super().load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:
            raise KDError(
                f"the checkpoint is of another model ({' '.join(str(error).split())[:200]}); train anew with rerun=true"
            ) from error
        lacking = [name for name in found.missing_keys if not name.startswith(self.unsaved)]
        if strict and (lacking or found.unexpected_keys):
            raise KDError(
                f"the checkpoint is of another model: it lacks {lacking[:3]} and has {found.unexpected_keys[:3]}; "
                "train anew with rerun=true"
            )
        return found


def run_fit(trainer: lightning.Trainer, method: Method, data: lightning.LightningDataModule, **options) -> None:
    """``trainer.fit`` whose interruptions and refusals are told apart.

    Raises:
        KeyboardInterrupt: after Ctrl-C, which Lightning turns into an exit.
        SystemExit: with code 143 after SIGTERM.
        KDError: what Lightning calls a misconfiguration.
    """
    try:
        trainer.fit(method, data, **options)
    except SIGTERMException:
        raise SystemExit(143) from None
    except SystemExit:
        raise KeyboardInterrupt from None
    except MisconfigurationException as error:
        raise KDError(f"Lightning refuses: {' '.join(str(error).split())}") from error


def factors(make_schedule: Callable[[Optimizer, int], LRScheduler], total_steps: int) -> Callable[[int], float]:
    """What a schedule multiplies the learning rate by, as a function of the step."""
    return make_schedule(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), total_steps).lr_lambdas[0]


def decay_groups(*modules: nn.Module, **options: float | None) -> list[dict]:
    """Two parameter groups: matrices take the optimizer's weight decay, biases and norms take none.

    Args:
        modules: whose parameters.
        options: of both groups, such as ``lr``; None: the optimizer's own.
    """
    options = {name: value for name, value in options.items() if value is not None}
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices, **options}, {"params": vectors, **{**options, "weight_decay": 0.0}}]
    return [group for group in groups if group["params"]]


def student_output(student: PreTrainedModel, batch: Batch, **wanted: bool) -> SequenceClassifierOutput:
    """The student's answer to a batch."""
    return student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **wanted)
