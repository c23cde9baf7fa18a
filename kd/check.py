"""What is wrong with a configuration, found before anything is downloaded, trained or labelled."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedModel

from kd import build, targets
from kd.contract import FeatureLoss
from kd.devices import contradictions
from kd.errors import KDError
from kd.features import POOLINGS
from kd.methods.base import Method
from kd.methods.distillation import Distillation, check_outputs
from kd.methods.feature_mapping import ToStudent, ToTeacher, require_balance
from kd.methods.joint import Joint
from kd.methods.schedule import SCALES
from kd.methods.supervised import Supervised
from kd.models.bow import MLPConfig
from kd.models.pretrained import new_student
from kd.paths import plain_name
from kd.ready_teacher import PRECISIONS


def check(config: DictConfig) -> None:
    """Refuse what cannot work before anything is downloaded, trained or labelled: all mistakes at once.

    Raises:
        KDError: with every mistake found.
    """
    targets.check(config)
    if not OmegaConf.is_config(config.cache):
        raise KDError(f"cache: expected cache.use and cache.max_gb, got {config.cache!r}; say cache.use=false")
    teachers = dict(_teachers(config.teacher, "teacher")) if config.teacher else {}
    recipes = {f"{place}.{key}": test for place in teachers for key, test in RECIPE.items()}
    mistakes = [
        f"{key}: expected {expected}, got {'null' if value is None else repr(value)}"
        for key, (fits, expected) in (NUMBERS | recipes).items()
        for value in _found(config, key)
        if not (fits(value) or (value is None and key in MAY_BE_NULL))
    ]

    def attempt(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except KDError as error:
            mistakes.append(str(error))

    mistakes += [
        f"{place}: expected a teacher, got {node}; teacher@{place}=hf makes it one, ~{place} takes one out"
        for place, node in teachers.items()
        if not (OmegaConf.is_dict(node) and "_target_" in node)
    ]
    for key in CHOICES:
        if OmegaConf.select(config, key) is None:
            mistakes.append(f"{key}: expected a choice, got null; kd train --help lists the choices")
    if mistakes:
        raise KDError("; ".join(mistakes))
    student = attempt(lambda: build.make(config.student, vocab_size=1, num_labels=2, pad_token_id=0))
    for node in (config.embeddings, config.tokenizer):
        attempt(lambda node=node: build.make(node))
    attempt(lambda: build.trainer(config, Path(config.outputs)))
    mistakes += contradictions(config)
    for node in teachers.values():
        if "precision" in node and node.get("fine_tune", True):
            options = {"precision": node.precision, "logger": False, "callbacks": []}
            attempt(lambda options=options: build.make(config.trainer, **options))
    schedules = {"optim.schedule": config.optim.get("schedule")}
    if "partner_schedule" in config.method:
        schedules["method.partner_schedule"] = config.method.partner_schedule
    for place, node in schedules.items():
        attempt(lambda place=place, node=node: _check_schedule(config, place, node))
    kind = attempt(lambda: build.method_class(config))
    if kind and config.data.get("stream"):
        mistakes += _streaming(config, kind)
    if kind and kind.reads_teacher:
        if config.teacher and "members" in config.teacher and not config.cache.use:
            mistakes.append("teacher=ensemble answers from the cache, member by member; leave cache.use=true")
        mistakes += attempt(lambda: CONTRADICTIONS[kind](config)) or []
        for name, node in config.loss.items():
            term = attempt(lambda node=node: build.make(node))
            if term and student:
                attempt(lambda name=name, term=term: check_outputs(name, term.needs, student, "student"))
        objective = None if mistakes else attempt(lambda: build.objective(config))
        if objective and kind is ToTeacher and config.method.feature_epochs:
            features = {name for name, term in objective.transfer.items() if isinstance(term, FeatureLoss)}
            attempt(lambda: require_balance(objective, features, config.method.keep_features))
        if objective and kind in AROUND:
            attempt(lambda: build.method(config, _any_student(), objective=objective, **AROUND[kind](config)))
    if mistakes:
        raise KDError("; ".join(dict.fromkeys(mistakes)))


def _streaming(config: DictConfig, kind: type[Method]) -> list[str]:
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


def _teachers(node: DictConfig, place: str) -> Iterator[tuple[str, DictConfig]]:
    """The teachers of a run, those of ensembles and chains too, by where they stand in the configuration."""
    yield place, node
    if OmegaConf.is_dict(node):
        if "teacher" in node:
            yield from _teachers(node.teacher, f"{place}.teacher")
        for name, member in (node.get("members") or {}).items():
            yield from _teachers(member, f"{place}.members.{name}")


def _found(config: DictConfig, key: str) -> list[Any]:
    """The value of a key; none where the configuration has no such key."""
    place, _, name = key.rpartition(".")
    node = OmegaConf.select(config, place) if place else config
    return [node[name]] if OmegaConf.is_dict(node) and name in node else []


def _any_student() -> PreTrainedModel:
    """For what a method refuses whatever its student is."""
    return new_student(MLPConfig(vocab_size=1, embedding_size=1, hidden_size=1))


def _check_schedule(config: DictConfig, place: str, node: Any) -> None:
    """Make the optimizer and one schedule of its learning rate."""
    if not OmegaConf.is_dict(node):
        found = "null" if node is None else repr(node)
        raise KDError(f"{place}: expected a schedule as in conf/optim/adamw.yaml, got {found}; leave it out")
    try:
        optimizer = build.make(config.optim.optimizer)([torch.nn.Parameter(torch.zeros(1, 1))])
    except (AttributeError, TypeError, ValueError) as error:
        raise error if isinstance(error, KDError) else KDError(f"optim: {error}; see conf/optim/adamw.yaml") from error
    try:
        build.make(node)(optimizer, 10)
    except KDError as error:
        raise KDError(f"{place}.{error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise KDError(f"{place}: {error}; see conf/optim/adamw.yaml") from error


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

AROUND: dict[type[Method], Callable[[DictConfig], dict[str, Any]]] = {
    Distillation: lambda config: {},
    ToStudent: lambda config: {"column": ""},
    Joint: lambda config: {"partners": {"teacher" if config.teacher else "peer": _any_student()}},
}
"""What the methods that can be made before there is a teacher take beside student and objective."""


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


TOWARDS_WORDS = ("kd.mapper.LeastSquares", "kd.mapper.Procrustes")

CONTRADICTIONS: dict[type[Method], Callable[[DictConfig], list[str]]] = {
    Distillation: _learns_from_teacher,
    ToTeacher: _hints,
    ToStudent: _composition,
    Joint: _joint,
}
"""What settings of each method that asks a teacher contradict one another."""
