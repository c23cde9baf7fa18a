"""What is wrong with a configuration, found before anything is downloaded, trained or labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedModel

from kd.config import build, contradictions, targets
from kd.config.make import make
from kd.config.trainer import make_trainer
from kd.config.values import CHOICES, MAY_BE_NULL, NUMBERS, RECIPE
from kd.contract import FeatureLoss
from kd.errors import KDError
from kd.methods.base import Method
from kd.methods.distillation import Distillation, check_outputs
from kd.methods.feature_mapping import ToStudent, ToTeacher, require_balance
from kd.methods.joint import Joint
from kd.models.bow import MLPConfig
from kd.models.pretrained import new_student


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
    student = attempt(lambda: make(config.student, vocab_size=1, num_labels=2, pad_token_id=0))
    for node in (config.embeddings, config.tokenizer):
        attempt(lambda node=node: make(node))
    attempt(lambda: make_trainer(config, Path(config.outputs)))
    mistakes += contradictions.contradictions(config)
    for node in teachers.values():
        if "precision" in node and node.get("fine_tune", True):
            options = {"precision": node.precision, "logger": False, "callbacks": []}
            attempt(lambda options=options: make(config.trainer, **options))
    schedules = {"optim.schedule": config.optim.get("schedule")}
    if "partner_schedule" in config.method:
        schedules["method.partner_schedule"] = config.method.partner_schedule
    for place, node in schedules.items():
        attempt(lambda place=place, node=node: _check_schedule(config, place, node))
    kind = attempt(lambda: build.method_class(config))
    if kind and config.data.get("stream"):
        mistakes += contradictions.of_streaming(config, kind)
    if kind and kind.reads_teacher:
        if config.teacher and "members" in config.teacher and not config.cache.use:
            mistakes.append("teacher=ensemble answers from the cache, member by member; leave cache.use=true")
        mistakes += attempt(lambda: contradictions.OF_METHOD[kind](config)) or []
        for name, node in config.loss.items():
            term = attempt(lambda node=node: make(node))
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
        optimizer = make(config.optim.optimizer)([torch.nn.Parameter(torch.zeros(1, 1))])
    except (AttributeError, TypeError, ValueError) as error:
        raise error if isinstance(error, KDError) else KDError(f"optim: {error}; see conf/optim/adamw.yaml") from error
    try:
        make(node)(optimizer, 10)
    except KDError as error:
        raise KDError(f"{place}.{error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise KDError(f"{place}: {error}; see conf/optim/adamw.yaml") from error


AROUND: dict[type[Method], Callable[[DictConfig], dict[str, Any]]] = {
    Distillation: lambda config: {},
    ToStudent: lambda config: {"column": ""},
    Joint: lambda config: {"partners": {"teacher" if config.teacher else "peer": _any_student()}},
}
"""What the methods that can be made before there is a teacher take beside student and objective."""
