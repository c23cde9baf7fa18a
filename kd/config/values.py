"""What single keys of a configuration may hold, where no constructor says so before it is too late."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from omegaconf import OmegaConf

from kd.features.feature import POOLINGS
from kd.methods.learning_rate import SCALES
from kd.teacher.ready import PRECISIONS


def _whole(least: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: type(value) is int and value >= least, f"a whole number of at least {least}"


def _number(least: float, most: float = math.inf) -> tuple[Callable[[Any], bool], str]:
    expected = f"a number of at least {least}" if most == math.inf else f"a number in [{least}, {most}]"
    return lambda value: type(value) in (int, float) and least <= value <= most, expected


_SWITCH = (lambda value: isinstance(value, bool), "true or false")
NUMBERS = {
    "seed": (lambda value: type(value) is int and 0 <= value < 2**32, "a whole number from 0 to 4294967295"),
    "cache.use": _SWITCH,
    "cache.max_gb": _number(0),
    "balance.calibrate": _SWITCH,
    "method.layers": (
        lambda value: isinstance(value, str) or OmegaConf.is_list(value),
        "a rule such as uniform, or pairs as in [[1,3],[2,6]]",
    ),
    "method.feature_epochs": _whole(0),
    "method.keep_features": _SWITCH,
    "method.shared_mapper": _SWITCH,
    "method.pooling": (lambda value: value in POOLINGS, "mean or cls"),
    "method.layer": _whole(0),
    "method.mapper_learning_rate": _number(0),
    "method.partner_learning_rate": _number(0),
    "method.partner_weight_decay": _number(0),
    "method.student_weight": _number(0),
    "method.partner_weight": _number(0),
    "method.partner_alpha": _number(0),
    "method.flow": _SWITCH,
    "method.clean_targets": _SWITCH,
    "method.keep_partners": _SWITCH,
    "method.copies": _whole(0),
    "method.frozen_layers": _whole(0),
    "method.teacher_start": (lambda value: value in ("warm", "cold"), "warm or cold"),
    "resume": _SWITCH,
    "rerun": _SWITCH,
    "trainer.devices": _whole(1),
    "trainer.num_nodes": _whole(1),
    "trainer.accumulate_grad_batches": _whole(1),
    "compile": _SWITCH,
    "optim.scale": (lambda value: value in SCALES, f"one of {', '.join(SCALES)}"),
    "optim.reference_batch": _whole(1),
    "trainer.gradient_clip_val": _number(0),
    "alpha": _number(0, 1),
    "temperature": _number(0),
    "label_smoothing": _number(0, 1),
    "threads": _whole(1),
    "data.batch_size": _whole(1),
    "data.max_length": _whole(2),
    "data.stream": _SWITCH,
    "data.shard_rows": _whole(1),
    "optim.optimizer.lr": _number(0),
    "optim.optimizer.weight_decay": _number(0),
    "trainer.max_epochs": _whole(1),
}
"""Keys that no constructor checks before it is too late, with a test and what it expects."""

RECIPE = {
    "fine_tune": _SWITCH,
    "epochs": _whole(1),
    "batch_size": _whole(1),
    "labelling_batch_size": _whole(1),
    "max_length": _whole(2),
    "seed": _whole(0),
    "alpha": _number(0, 1),
    "temperature": (lambda value: type(value) in (int, float) and value > 0, "a number above 0"),
    "learning_rate": _number(0),
    "weight_decay": _number(0),
    "warm_up": _number(0, 1),
    "gradient_clip": _number(0),
    "answer_precision": (lambda value: value in PRECISIONS, "32-true or bf16-true"),
    "answer_device": (lambda value: value in (None, "cpu"), "null or cpu"),
}
"""The same for each teacher."""

MAY_BE_NULL = frozenset(
    {
        *("method.layer", "method.mapper_learning_rate", "method.student_weight"),
        *("method.partner_learning_rate", "method.partner_weight", "method.partner_alpha"),
        *("trainer.gradient_clip_val", "trainer.max_epochs", "threads"),
    }
)
"""Those among them that mean something without a value."""

CHOICES = (
    *("student", "embeddings", "tokenizer", "optim", "trainer", "mapper"),
    *("balance.alpha", "balance.temperature", "balance.confidence", "balance.weighting"),
)
"""Groups that every run reads."""
