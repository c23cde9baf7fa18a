"""What is wrong with a configuration, found before anything is downloaded, trained or labelled."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from kd import build
from kd.contract import FeatureLoss
from kd.errors import KDError
from kd.features import POOLINGS
from kd.methods.base import Method
from kd.methods.distillation import Distillation, check_outputs
from kd.methods.feature_mapping import ToStudent, ToTeacher
from kd.methods.joint import Joint


def check(config: DictConfig) -> None:
    """Refuse what cannot work before anything is downloaded, trained or labelled: all mistakes at once.

    Raises:
        KDError: with every mistake found.
    """
    if not OmegaConf.is_config(config.cache):
        raise KDError(f"cache: expected cache.use and cache.max_gb, got {config.cache!r}; say cache.use=false")
    mistakes = [
        f"{key}: expected {expected}, got {value!r}"
        for key, (fits, expected) in NUMBERS.items()
        if (value := OmegaConf.select(config, key)) is not None and not fits(value)
    ]

    def attempt(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except KDError as error:
            mistakes.append(str(error))

    for key in ("student", "embeddings", "tokenizer", "optim", "trainer", "mapper", "balance"):
        if OmegaConf.select(config, key) is None:
            mistakes.append(f"{key}: expected a choice, got null; kd train --help lists the choices")
    if mistakes:
        raise KDError("; ".join(mistakes))
    student = attempt(lambda: build.make(config.student, vocab_size=1, num_labels=2, pad_token_id=0))
    for node in (config.embeddings, config.tokenizer):
        attempt(lambda node=node: build.make(node))
    attempt(lambda: build.trainer(config, Path(config.outputs)))
    if config.teacher and config.teacher.get("fine_tune"):
        attempt(lambda: build.make(config.trainer, precision=config.teacher.precision, logger=False, callbacks=[]))
    attempt(lambda: _check_optimizer(config))
    kind = attempt(lambda: build.method_class(config))
    if kind and kind.reads_teacher:
        if config.teacher and "members" in config.teacher and not config.cache.use:
            mistakes.append("teacher=ensemble answers from the cache, member by member; leave cache.use=true")
        mistakes += attempt(lambda: CONTRADICTIONS[kind](config)) or []
        for name, node in config.loss.items():
            term = attempt(lambda node=node: build.make(node))
            if term and student:
                attempt(lambda name=name, term=term: check_outputs(name, term.needs, student, "student"))
        if not mistakes:
            attempt(lambda: build.objective(config, 2))
    if mistakes:
        raise KDError("; ".join(dict.fromkeys(mistakes)))


def _check_optimizer(config: DictConfig) -> None:
    try:
        optimizer = build.make(config.optim.optimizer)([torch.nn.Parameter(torch.zeros(1, 1))])
        build.make(config.optim.schedule)(optimizer, 10)
    except (AttributeError, TypeError, ValueError) as error:
        raise error if isinstance(error, KDError) else KDError(f"optim: {error}; see conf/optim/adamw.yaml") from error


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
    "method.teacher_start": (lambda value: value in ("warm", "cold"), "warm or cold"),
    "resume": _SWITCH,
    "rerun": _SWITCH,
    "teacher.fine_tune": _SWITCH,
    "trainer.devices": (lambda value: value == 1, "1: several devices are not supported yet"),
    "trainer.accumulate_grad_batches": _whole(1),
    "trainer.gradient_clip_val": _number(0),
    "alpha": _number(0, 1),
    "temperature": _number(0),
    "label_smoothing": _number(0, 1),
    "threads": _whole(1),
    "data.batch_size": _whole(1),
    "data.max_length": _whole(2),
    "teacher.epochs": _whole(1),
    "teacher.batch_size": _whole(1),
    "teacher.labelling_batch_size": _whole(1),
    "teacher.max_length": _whole(2),
    "teacher.seed": _whole(0),
    "teacher.learning_rate": _number(0),
    "teacher.weight_decay": _number(0),
    "teacher.warm_up": _number(0, 1),
    "teacher.gradient_clip": _number(0),
    "optim.optimizer.lr": _number(0),
    "optim.optimizer.weight_decay": _number(0),
    "trainer.max_epochs": _whole(1),
}
"""Keys that no constructor checks before it is too late, with a test and what it expects."""


def _learns_from_teacher(config: DictConfig) -> list[str]:
    mistakes = []
    if not config.loss:
        mistakes.append(f"method={config.choices.method} needs a transfer term, got none; use loss=[soft_target]")
    return mistakes + _needs_teacher(config)


def _needs_teacher(config: DictConfig) -> list[str]:
    if config.teacher:
        return []
    return [f"method={config.choices.method} learns from a teacher, and teacher=none gives none; choose teacher=..."]


def _hints(config: DictConfig) -> list[str]:
    mistakes = _learns_from_teacher(config)
    terms = [build.make(node) for node in config.loss.values()]
    if terms and not any(isinstance(term, FeatureLoss) for term in terms):
        mistakes.append(
            f"method.direction=to_teacher needs a loss that reads features, found only {', '.join(config.loss)}; add "
            "one, as in loss=[soft_target,hint], or set method.direction=to_student"
        )
    if config.method.feature_epochs and config.method.feature_epochs >= config.trainer.max_epochs:
        mistakes.append(
            f"method.feature_epochs={config.method.feature_epochs} leaves none of trainer.max_epochs="
            f"{config.trainer.max_epochs} for the task; lower the one or raise the other"
        )
    if config.method.layer is not None:
        mistakes.append(
            "method.layer cuts the teacher for method.direction=to_student; here method.layers pairs layers"
        )
    return mistakes


def _composition(config: DictConfig) -> list[str]:
    mistakes = _needs_teacher(config)
    if config.teacher and "members" in config.teacher:
        mistakes.append("method.direction=to_student cuts one teacher, got an ensemble; choose a single teacher")
    if config.method.feature_epochs:
        mistakes.append("method.feature_epochs is a stage of method.direction=to_teacher; leave it at 0")
    return mistakes


def _joint(config: DictConfig) -> list[str]:
    mistakes = []
    if not config.loss:
        mistakes.append("method=joint needs a transfer term, got none; use loss=[soft_target]")
    if config.cache.use:
        mistakes.append(
            "method=joint trains the teacher, and cached outputs would no longer be its own; leave cache.use=false"
        )
    if not config.teacher and not config.peers and not config.method.copies:
        mistakes.append(
            "method=joint needs a partner, got none; choose teacher=..., method.copies=1 or +student@peers.NAME=..."
        )
    if config.teacher and "members" in config.teacher:
        mistakes.append("method=joint trains one teacher, got an ensemble; choose a single teacher")
    return mistakes


CONTRADICTIONS: dict[type[Method], Callable[[DictConfig], list[str]]] = {
    Distillation: _learns_from_teacher,
    ToTeacher: _hints,
    ToStudent: _composition,
    Joint: _joint,
}
"""What settings of each method that asks a teacher contradict one another."""
