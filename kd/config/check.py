"""Find what is wrong with a configuration before anything is downloaded, trained or labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from kd.config import build, contradictions, targets
from kd.config.declarations import declarations, missing_sections, option_mistakes
from kd.config.make import make
from kd.config.trainer import make_trainer
from kd.errors import KDError
from kd.methods.base import Method
from kd.methods.distillation import check_outputs
from kd.methods.joint import Joint

CHOICES = (
    *("student", "embeddings", "tokenizer", "optim", "trainer", "mapper"),
    *("balance.alpha", "balance.temperature", "balance.confidence", "balance.weighting"),
)
"""Groups that every run reads."""


class Mistakes(list[str]):
    """The mistakes found so far."""

    def attempt(self, action: Callable[[], Any]) -> Any:
        """Return what an action returns; note the mistake that it finds, and return None."""
        try:
            return action()
        except KDError as error:
            self.append(str(error))

    def refuse(self) -> None:
        """Raise all of them in one error, each once.

        Raises:
            KDError: if there are any.
        """
        if self:
            raise KDError("; ".join(dict.fromkeys(self)))


def check(config: DictConfig) -> None:
    """Refuse what cannot work before anything is downloaded, trained or labelled: all mistakes at once.

    Raises:
        KDError: with every mistake found.
    """
    check_options(config)  # what follows makes objects of the options
    mistakes = Mistakes()
    mistakes.attempt(lambda: make_trainer(config, Path(config.outputs)))
    for node in (config.embeddings, config.tokenizer):
        mistakes.attempt(lambda node=node: make(node))
    mistakes += contradictions.of_trainer(config)
    _check_recipes(config, mistakes)
    _check_schedules(config, mistakes)
    student = mistakes.attempt(lambda: make(config.student, vocab_size=1, num_labels=2, pad_token_id=0))
    kind = mistakes.attempt(lambda: build.method_class(config))
    if kind and config.data.get("stream"):
        mistakes += contradictions.of_streaming(config, kind)
    if kind and kind.reads_teacher:
        _check_method(config, kind, student, mistakes)
    mistakes.refuse()


def check_options(config: DictConfig) -> None:
    """Refuse values that their declarations do not allow, all in one go.

    Raises:
        KDError: with every mistake found; or code that no configuration may name.
    """
    Mistakes(missing_sections(config)).refuse()
    targets.check(config)
    Mistakes([*option_mistakes(config, declarations(config)), *_missing_choices(config)]).refuse()


def _missing_choices(config: DictConfig) -> Iterator[str]:
    """Find groups without a choice, and teachers that are none."""
    for key in CHOICES:
        if not OmegaConf.is_dict(OmegaConf.select(config, key)):
            found = OmegaConf.select(config, key)
            yield f"{key}: expected a choice, got {found or 'null'}; kd train --help lists the choices"
    for place, node in dict(_teachers(config.teacher, "teacher") if config.teacher else ()).items():
        if not (OmegaConf.is_dict(node) and "_target_" in node):
            yield f"{place}: expected a teacher, got {node}; teacher@{place}=hf makes it one, ~{place} takes one out"


def _teachers(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Find the teachers of a run, those of ensembles and chains too, by their place in the configuration."""
    yield place, node
    if OmegaConf.is_dict(node):
        if "teacher" in node:
            yield from _teachers(node.teacher, f"{place}.teacher")
        for name, member in (node.get("members") or {}).items():
            yield from _teachers(member, f"{place}.members.{name}")


def _check_recipes(config: DictConfig, mistakes: Mistakes) -> None:
    """Make the trainer with the precision of each teacher that is fine-tuned."""
    for _, node in _teachers(config.teacher, "teacher") if config.teacher else ():
        if "precision" in node and node.get("fine_tune", True):
            options = {"precision": node.precision, "logger": False, "callbacks": []}
            mistakes.attempt(lambda options=options: make(config.trainer, **options))


def _check_schedules(config: DictConfig, mistakes: Mistakes) -> None:
    """Make the optimizer and each schedule of a learning rate."""
    schedules = {"optim.schedule": config.optim.get("schedule")}
    if "partner_schedule" in config.method:
        schedules["method.partner_schedule"] = config.method.partner_schedule
    for place, node in schedules.items():
        mistakes.attempt(lambda place=place, node=node: _check_schedule(config, place, node))


def _check_schedule(config: DictConfig, place: str, node: Any) -> None:
    if not OmegaConf.is_dict(node):
        found = "null" if node is None else repr(node)
        raise KDError(f"{place}: expected a schedule as in conf/optim/adamw.yaml, got {found}; leave it out")
    try:
        optimizer = make(config.optim.optimizer)([torch.nn.Parameter(torch.zeros(1, 1))])
        make(node)(optimizer, 10)
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, KDError):
            raise
        raise KDError(f"optim, {place}: {error}; see conf/optim/adamw.yaml") from error


def _check_method(config: DictConfig, kind: type[Method], student: Any, mistakes: Mistakes) -> None:
    """Check what a method with a second model needs beyond its own options."""
    if config.teacher and "members" in config.teacher and not config.cache.use:
        mistakes.append("teacher=ensemble reads its outputs from the cache, member by member; leave cache.use=true")
    mistakes += mistakes.attempt(lambda: contradictions.OF_METHOD[kind](config)) or []
    for name, node in config.loss.items():
        term = mistakes.attempt(lambda node=node: make(node))
        if term and student:
            mistakes.attempt(lambda name=name, term=term: check_outputs(name, term.needs, student, "student"))
    objective = mistakes.attempt(lambda: build.objective(config))
    options = mistakes.attempt(lambda: build.method_options(config))
    if objective and options:
        partners = {"teacher": bool(config.teacher)} if kind is Joint else {}
        mistakes.attempt(lambda: kind.require(objective, options, **partners))
