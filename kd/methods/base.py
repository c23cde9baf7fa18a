"""What the methods have in common: the objective, the optimizer, the metrics, the guard against NaN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.contract import IGNORED_LABEL, Batch
from kd.errors import KDError


def objective(label_loss: Tensor, transfer: Mapping[str, Tensor], weights: Mapping[str, float], alpha: float) -> Tensor:
    """``(1 - alpha) * label_loss + alpha * sum_i weight_i * loss_i``.

    A part whose share is 0 is left out rather than multiplied by 0, so that ``alpha=0`` is the
    supervised run bit for bit and ``alpha=1`` reads no label.

    >>> objective(torch.tensor(1.0), {"soft_target": torch.tensor(4.0)}, {"soft_target": 0.5}, alpha=0.25)
    tensor(1.2500)
    """
    if alpha == 0 or not transfer:
        return label_loss
    distilled = sum(weights[name] * term for name, term in transfer.items())
    return distilled if alpha == 1 else (1 - alpha) * label_loss + alpha * distilled


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

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """All parts of the objective for a training batch, each a scalar: ``total`` and the logged terms."""

    def on_train_epoch_start(self) -> None:
        entropy = np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
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
            curves = {f"train/loss/{name}": part.detach() for name, part in parts.items()}
            self.log_dict(curves, batch_size=len(batch["index"]))
        return total

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        logits = student_output(self.student, batch).logits
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
        optimizer = self.make_optimizer(decay_groups(self))
        schedule = self.make_schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


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


def decay_groups(module: nn.Module) -> list[dict]:
    """Two parameter groups: matrices take the optimizer's weight decay, biases and norms take none."""
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def student_output(student: PreTrainedModel, batch: Batch, **wanted: bool) -> SequenceClassifierOutput:
    """The student's answer to a batch."""
    return student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **wanted)
