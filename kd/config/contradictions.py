"""What settings of a run contradict one another: no key alone is wrong, and together they say nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd.config.make import make
from kd.contract import FeatureLoss
from kd.methods.base import Method
from kd.methods.distillation import Distillation
from kd.methods.feature_mapping import ToStudent, ToTeacher
from kd.methods.joint import Joint
from kd.methods.supervised import Supervised
from kd.runtime.devices import _strategy, is_sharded
from kd.storage.paths import plain_name


def of_streaming(config: DictConfig, kind: type[Method]) -> list[str]:
    """Those of ``data.stream=true``."""
    mistakes = []
    if kind not in (Distillation, Supervised):
        mistakes.append(
            f"data.stream=true is read by method=distillation and by its baseline method=supervised, got method="
            f"{config.choices.method}; choose one of them, or set data.stream=false"
        )
    if not config.data.get("unlabelled"):
        mistakes.append("data.stream=true streams the files of data.unlabelled, got none; give them, or leave it out")
    if config.data.get("limit") is not None:
        mistakes.append("data.limit chooses rows in memory; with data.stream=true give a smaller file instead")
    if kind is Distillation and not config.cache.use:
        mistakes.append("data.stream=true reads the teacher's logits from disk; leave cache.use=true")
    return mistakes


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
    terms = [make(node) for node in config.loss.values()]
    if terms and not any(isinstance(term, FeatureLoss) for term in terms):
        mistakes.append(
            f"method.direction=to_teacher needs a loss that reads features, found only {', '.join(config.loss)}; add "
            "one, as in loss=[soft_target,hint], or set method.direction=to_student"
        )
    if 0 < (config.trainer.max_epochs or math.inf) <= config.method.feature_epochs:
        mistakes.append(
            f"method.feature_epochs={config.method.feature_epochs} leaves none of trainer.max_epochs="
            f"{config.trainer.max_epochs} for the task; lower the one or raise the other"
        )
    if config.method.keep_features and not config.method.feature_epochs:
        mistakes.append("method.keep_features=true is of runs in two stages, and method.feature_epochs=0; set both")
    if config.method.layer is not None:
        mistakes.append(
            "method.layer cuts the teacher for method.direction=to_student; here method.layers pairs layers"
        )
    return mistakes


def _unread(config: DictConfig, defaults: dict[str, Any]) -> list[str]:
    """Options that the user set, and that this way of training does not read."""
    way = config.method.get("direction") or f"{config.choices.method} without a teacher"
    return [
        f"method.{name}={config.method[name]} is not read by {way}; leave it at {json.dumps(default)}"
        for name, default in defaults.items()
        if config.method[name] != default
    ]


def _composition(config: DictConfig) -> list[str]:
    mistakes = _needs_teacher(config)
    if config.teacher and "members" in config.teacher:
        mistakes.append("method.direction=to_student cuts one teacher, got an ensemble; choose a single teacher")
    if config.choices.embeddings == "random" and config.mapper._target_ in TOWARDS_WORDS:
        mistakes.append(
            "this mapper is fitted towards the word table that the student would have, and embeddings=random is noise; "
            "use embeddings=pca, or mapper=linear or pca"
        )
    if config.teacher and config.teacher.get("answer_precision", "32-true") != "32-true":
        mistakes.append(
            "method.direction=to_student takes the teacher into the student; leave teacher.answer_precision=32-true"
        )
    defaults = {"layers": "top", "features_from": None, "pooling": "mean", "shared_mapper": False}
    return mistakes + _unread(config, {**defaults, "feature_epochs": 0, "keep_features": False})


def _joint(config: DictConfig) -> list[str]:
    mistakes = []
    peers = config.peers
    if not OmegaConf.is_dict(peers) or not all(OmegaConf.is_dict(node) for node in peers.values()):
        return [f"peers: expected students by name, as +student@peers.NAME=dan adds one, got {peers or 'null'}"]
    for name in peers:
        plain_name(name, "peers")  # of a folder in partners/
    if {"teacher", "student"} & set(peers):
        mistakes.append("peers: 'teacher' and 'student' name other models of the run; choose other names")
    if not config.loss:
        mistakes.append("method=joint needs a transfer term, got none; use loss=[soft_target]")
    if config.cache.use and not (config.teacher and config.method.frozen_layers):
        mistakes.append(
            "method=joint trains the teacher, and cached outputs would no longer be its own; leave cache.use=false, or "
            "freeze its lowest layers (method.frozen_layers): what they say stays true"
        )
    if not config.teacher and not peers and not config.method.copies:
        mistakes.append(
            "method=joint needs a partner, got none; choose teacher=..., method.copies=1 or +student@peers.NAME=..."
        )
    if not config.teacher:
        mistakes += _unread(config, {"frozen_layers": 0, "teacher_start": "warm"})
    if config.teacher and "members" in config.teacher:
        mistakes.append("method=joint trains one teacher, got an ensemble; choose a single teacher")
    if config.teacher and "teacher" in config.teacher and config.method.teacher_start == "cold":
        mistakes.append("method.teacher_start=cold starts from a backbone, and teacher=assistant has none; use warm")
    return mistakes


TOWARDS_WORDS = ("kd.features.fitted_mapper.LeastSquares", "kd.features.fitted_mapper.Procrustes")

OF_METHOD: dict[type[Method], Callable[[DictConfig], list[str]]] = {
    Distillation: _learns_from_teacher,
    ToTeacher: _hints,
    ToStudent: _composition,
    Joint: _joint,
}
"""What settings of each method that asks a teacher contradict one another."""


COMPARES_GRADIENTS = ("kd.methods.weighting.GradNorm", "kd.methods.weighting.PCGrad")


def contradictions(config: DictConfig) -> list[str]:
    """What the strategy of the run cannot do, a sentence each."""
    kinds = [node.get("_target_", "").rpartition(".")[2] for node in config.callbacks.values()]
    mistakes = []
    if is_sharded(config):
        if any(kind.endswith("WeightAveraging") for kind in kinds):
            mistakes.append("trainer=fsdp holds no whole model to average; leave out callbacks ema, or use trainer=ddp")
        if config.compile:
            mistakes.append("compile=true and trainer=fsdp were never tried together; set compile=false")
        if config.balance.weighting.get("_target_") in COMPARES_GRADIENTS:
            mistakes.append(
                "this balance/weighting compares gradients of whole models, and trainer=fsdp has none; use "
                "balance/weighting=constant or uncertainty, or trainer=ddp"
            )
    if "deepspeed" in _strategy(config).lower() and "ModelCheckpoint" in kinds:
        mistakes.append(
            "DeepSpeed writes folders that kd neither resumes from nor takes the best epoch from; set "
            "callbacks=[progress] to keep the weights of the last step, or use trainer=fsdp"
        )
    return mistakes
