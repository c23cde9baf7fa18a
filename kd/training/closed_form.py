"""Fit a student in closed form: without an optimizer, steps or checkpoints."""

from __future__ import annotations

import logging
import time
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig

from kd.contract import IGNORED_LABEL
from kd.data.batching import EncodedSplit, LengthBucketSampler
from kd.data.module import TextDataModule
from kd.losses.label import LabelLoss
from kd.measure.energy import EnergyMeter
from kd.measure.inference import all_logits
from kd.measure.metrics import label_metrics
from kd.methods.base import Method
from kd.methods.distillation import Distillation
from kd.models.fitted import FittedStudent, Rows
from kd.options.sections import METRICS
from kd.run.directory import RunDirectory
from kd.runtime import ranks
from kd.storage.files import write_text

log = logging.getLogger(__name__)

BATCH = 256


def fit_closed_form(config: DictConfig, run: RunDirectory, method: Method, data: TextDataModule) -> dict[str, Any]:
    """Fit the student of the method, and write its only line of ``metrics.csv``.

    Returns:
        ``training_seconds``, ``weights`` and ``energy``, as `kd.training.train.fit` does.
    """
    ranks.send_ready()
    data.setup("fit")
    student, train = cast(FittedStudent, method.student), cast(EncodedSplit, data.train)
    special = frozenset(data.tokenizers["the student's"].all_special_ids)
    meter, start = EnergyMeter.of_this_machine(gpus=False), time.perf_counter()
    classes = cast(int, student.config.num_labels)
    gold = one_hot(train.labels, classes)
    weights = cast(LabelLoss, method.label_loss).class_weights
    if weights is not None:
        gold *= weights.numpy()
    soft = soft_targets(method, train, gold, config) if isinstance(method, Distillation) else gold
    student.fit(rows(train, soft), rows(data.validation, one_hot(data.validation.labels, classes)), special)
    seconds, energy = time.perf_counter() - start, meter.stop()
    log.info("fitted in %.2f s to %d rows: the optimizer and the trainer are not used", seconds, len(train))
    batches = LengthBucketSampler(data.validation.tokens.lengths, BATCH)
    logits = all_logits(student, (data.validation[batch] for batch in batches), len(data.validation))
    found = label_metrics(logits, data.validation.labels)
    header, values = ",".join(f"val/{name}" for name in METRICS), ",".join(str(found[name]) for name in METRICS)
    write_text(run.path / "metrics.csv", f"epoch,step,{header}\n0,0,{values}\n")
    return {"training_seconds": round(seconds, 2), "weights": "fitted", "energy": energy}


def rows(split: EncodedSplit, targets: np.ndarray) -> Rows:
    """Return the rows of a split that count for a class."""
    kept = np.flatnonzero(targets.sum(axis=1) > 0)
    return Rows(split.tokens.take(kept), targets[kept])


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return gold labels as targets ``[N, C]``; zeros for a row without a label.

    >>> one_hot(np.array([1, -100]), 2).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    return (labels[:, None] == np.arange(classes)).astype(float) * (labels[:, None] != IGNORED_LABEL)


def soft_targets(method: Distillation, train: EncodedSplit, gold: np.ndarray, config: DictConfig) -> np.ndarray:
    """Return ``alpha * softmax(teacher's logits / temperature) + (1 - alpha) * gold`` for each row, ``[N, C]``.

    A row without a gold label counts alpha in all, and one without the teacher's answer its gold label.
    """
    found = np.zeros_like(gold)
    for batch in LengthBucketSampler(train.tokens.lengths, BATCH):
        logits, _ = method.teacher(train[batch], ())
        found[batch] = torch.softmax(logits.double().cpu() / config.temperature, dim=1).numpy()
    alpha = np.full((len(gold), 1), config.alpha)
    if (answered := train.columns.get("teacher_answered")) is not None:
        alpha[~cast(np.ndarray, answered)], found[~cast(np.ndarray, answered)] = 0, 0
    return alpha * found + (1 - alpha) * gold
