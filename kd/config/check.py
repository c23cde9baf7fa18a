"""Find what is wrong with a configuration before anything is downloaded, trained or labelled."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer
from transformers import PretrainedConfig

from kd.config import build, contradictions, targets
from kd.config.closed_form import of_closed_form
from kd.config.declarations import declarations, missing_sections, option_mistakes, unknown_keys
from kd.config.folder import resolving
from kd.config.make import make
from kd.config.trainer import make_trainer
from kd.contract import Loss
from kd.data.sources import Splits
from kd.data.splits import text_keys
from kd.data.tokenizers import StudentTokenizer
from kd.errors import KDError
from kd.features.mapper import Mapper
from kd.methods.base import Method
from kd.methods.confidence import Confidence
from kd.methods.distillation import check_outputs
from kd.methods.joint import Joint
from kd.methods.schedules import LearnedTemperature, Schedule
from kd.methods.weighting import Weighting
from kd.models.embeddings import Embeddings
from kd.models.fitted import FittedConfig
from kd.models.pretrained import new_student
from kd.models.truncated import TruncatedConfig
from kd.run.directory import RunDirectory
from kd.storage.model_folder import require_length
from kd.teacher.answers import Answers
from kd.teacher.ensemble import Ensemble
from kd.teacher.fine_tuning import SingleTeacher
from kd.transfer.base import Step

log = logging.getLogger(__name__)

CHOICES: dict[str, type | tuple[type, ...]] = {
    **{"student": PretrainedConfig, "embeddings": Embeddings, "tokenizer": StudentTokenizer, "mapper": Mapper},
    **{"balance.alpha": Schedule, "balance.temperature": (Schedule, LearnedTemperature)},
    **{"balance.confidence": Confidence, "balance.weighting": Weighting},
    **{"optim.optimizer": Optimizer, "trainer": lightning.Trainer, "method": Method, "data": object},
}
"""Groups that every run reads, and what a class that one names must extend."""
ENTRIES: dict[str, type] = {
    **{"loss": Loss, "transfer": Step, "callbacks": lightning.Callback, "logger": Logger, "peers": PretrainedConfig},
}
"""Groups of several nodes, and what a class that one names must extend."""


MOST_WEIGHTS = 10**10
"""The largest student, beside its word table: 40 GB, and three times as much to train it."""


class Mistakes(list[str]):
    """The mistakes found so far."""

    def attempt(self, action: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Return the result of an action. If it raises a `KDError`, note the message and return None."""
        try:
            return action(*arguments, **named)
        except KDError as error:
            self.append(str(error))

    def refuse(self) -> None:
        """Raise one `KDError` with all mistakes, each of them once, if there are any."""
        if self:
            raise KDError("; ".join(dict.fromkeys(self)))


@resolving()
def check(config: DictConfig) -> None:
    """Refuse a configuration that cannot work; the message has every mistake found."""
    check_options(config)  # what follows makes objects of the options
    mistakes = Mistakes()
    mistakes.attempt(make_trainer, config, Path(config.outputs))
    mistakes.attempt(make, config.embeddings)
    mistakes.attempt(make, config.tokenizer)
    for node in (config.transfer or {}).values():
        mistakes.attempt(make, node)
    mistakes += contradictions.of_trainer(config)
    for node in _teachers(config).values():
        if "precision" in node and node.get("fine_tune", True):
            mistakes.attempt(make, config.trainer, precision=node.precision, logger=False, callbacks=[])
    _check_schedules(config, mistakes)
    student = mistakes.attempt(_student, config, "student", config.student)
    for name, node in config.peers.items():
        mistakes.attempt(_student, config, f"peers.{name}", node)
    kind = mistakes.attempt(build.method_class, config)
    options = mistakes.attempt(build.method_options, config) if kind else None
    if kind:
        mistakes += [*contradictions.of_selection(config, kind), *contradictions.of_counterparts(config)]
    if kind and contradictions.is_answers(config):
        mistakes += contradictions.of_answers(config, kind)
        mistakes.refuse()  # what follows asks for a model
    if kind and config.data.get("stream"):
        mistakes += contradictions.of_streaming(config, kind)
    if kind:
        mistakes += [*contradictions.of_start(config, kind), *contradictions.of_ngrams(config, kind)]
    if kind and isinstance(student, FittedConfig):
        mistakes += of_closed_form(config, kind)
        mistakes.refuse()  # what follows would say it again, in terms of layers and losses
    if kind and kind.reads_teacher:
        _check_method(config, kind, options, student, mistakes)
    mistakes.refuse()


@resolving()
def check_options(config: DictConfig) -> None:
    """Refuse values that the declarations of their options do not allow, and code that may not be named."""
    Mistakes(missing_sections(config)).refuse()
    targets.check(config)
    declared = declarations(config)
    mistakes = [*option_mistakes(config, declared), *unknown_keys(config, declared), *_missing_choices(config)]
    Mistakes(mistakes).refuse()


def check_data(config: DictConfig) -> None:
    """Refuse wrong values of the section ``data`` alone, such as those of a finished run that someone has changed.

    Raises:
        KDError: with every mistake found; or with code that no configuration may name.
    """
    part = OmegaConf.create({"data": config.data})
    targets.check(part)
    Mistakes(option_mistakes(part, declarations(part))).refuse()


def rows_of_run(run: RunDirectory, split: str | None = None) -> Splits:
    """Read the rows of a finished run again.

    Args:
        run: its modules must be trusted already, if it has any.
        split: compare the rows of this split with those that the run has read.

    Raises:
        KDError: the rows cannot be read, or they are others now.
    """
    config = OmegaConf.create(run.config())
    check_data(config)
    found = build.given_rows(config)
    if split and found.counts["splits"][split]["sha256"] != run.environment()["data"][split]:
        raise KDError(
            f"the {split} rows on disk are no longer those of the run in '{run.path}'; bring them back, give the "
            "rows with --file, or train it again"
        )
    return found


def keys_seen(runs: Iterable[RunDirectory]) -> set[bytes]:
    """Return the keys of all texts that runs were trained or selected on, so far as their data is on disk."""
    found = set()
    for run in runs:
        try:
            splits = rows_of_run(run)
        except KDError as error:
            log.warning("it is not known which texts '%s' was trained on: %s", run.path, error)
            continue
        for split in (splits.train, splits.validation):
            found |= {text_keys(text)[1] for text in split["text"]}
    return found


def _missing_choices(config: DictConfig) -> Iterator[str]:
    """Find groups without a choice, and teachers that are not nodes with a ``_target_``."""
    for key, kind in CHOICES.items():
        found = OmegaConf.select(config, key)
        if not (OmegaConf.is_dict(found) and "_target_" in found):
            got = "null" if found is None else found
            yield f"{key}: expected a choice, got {got}; kd train --help lists the choices"
        else:
            yield from _of_another_kind(key, found, kind)
    for group, kind in ENTRIES.items():
        for name, node in config[group].items() if OmegaConf.is_dict(config[group]) else ():
            if OmegaConf.is_dict(node) and "_target_" in node:
                yield from _of_another_kind(f"{group}.{name}", node, kind)
    for place, node in _teachers(config).items():
        if not (OmegaConf.is_dict(node) and "_target_" in node):
            yield f"{place}: expected a teacher, got {node}; teacher@{place}=hf makes it one, ~{place} takes one out"
            continue
        # The members of an ensemble and the teacher of an assistant are models.
        files = (Answers,) if place == "teacher" else ()
        yield from _of_another_kind(place, node, (SingleTeacher, Ensemble, *files))
        if "members" in node and not (OmegaConf.is_dict(node.members) and node.members):
            adds = f"+teacher@{place}.members.NAME=hf adds one"
            yield f"{place}.members: expected teachers by name, got {node.members}; {adds}"
        parameters = inspect.signature(targets.find(node._target_)).parameters.values()
        for missing in [each.name for each in parameters if each.default is each.empty and each.name not in node]:
            yield f"{place}.{missing}: expected a value, found no such key; leave it in the configuration"


def _of_another_kind(place: str, node: DictConfig, kind: type | tuple[type, ...]) -> Iterator[str]:
    """Find a node that names a class of another group. What a function returns is known only when it is called."""
    found = targets.find(node._target_, f"{place}._target_")
    if isinstance(found, type) and not issubclass(found, kind):
        wanted = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        yield f"{place}._target_: expected a kind of {wanted}, got {node._target_}; kd train --help lists the choices"


def _teachers(config: DictConfig) -> dict[str, Any]:
    """Find the teachers of a run, also those of ensembles and assistants, by their place in the configuration."""
    found: dict[str, Any] = {}
    todo = {"teacher": config.teacher} if config.teacher else {}
    while todo:
        place = next(iter(todo))
        found[place] = node = todo.pop(place)
        if OmegaConf.is_dict(node):
            todo |= {f"{place}.teacher": node.teacher} if "teacher" in node else {}
            members = node.get("members") if OmegaConf.is_dict(node.get("members")) else {}
            todo |= {f"{place}.members.{name}": member for name, member in members.items()}
    return found


def _check_schedules(config: DictConfig, mistakes: Mistakes) -> None:
    """Make the optimizer and each schedule of a learning rate."""
    schedules = {"optim.schedule": config.optim.get("schedule")}
    if "partner_schedule" in config.method:
        schedules["method.partner_schedule"] = config.method.partner_schedule
    for place, node in schedules.items():
        if not OmegaConf.is_dict(node):
            found = "null" if node is None else repr(node)
            mistakes.append(f"{place}: expected a schedule as in conf/optim/adamw.yaml, got {found}; leave it out")
            continue
        try:
            make(node)(make(config.optim.optimizer)([torch.nn.Parameter(torch.zeros(1, 1))]), 10)
        except KDError as error:
            mistakes.append(str(error))
        except (AttributeError, TypeError, ValueError) as error:
            mistakes.append(f"optim, {place}: {error}; see conf/optim/adamw.yaml")


def _student(config: DictConfig, place: str, node: DictConfig) -> PretrainedConfig:
    """Make the configuration of a student, and refuse one of which no model can be made, such as 7 heads of 128 units.

    No memory is taken for the weights, and no checkpoint is read.
    """
    student = make(node, vocab_size=1, num_labels=2, pad_token_id=0)
    if not isinstance(student, PretrainedConfig):
        raise KDError(f"{place}._target_: expected the configuration of a model, got {node._target_}; choose another")
    if student.name_or_path or isinstance(student, TruncatedConfig):  # whose sizes are those of another model
        return student
    require_length(student.model_type, student, config.data.max_length, "data.max_length")
    widest = max(getattr(student, "filter_sizes", [0]))
    if widest > config.data.max_length:
        raise KDError(
            f"{place}.filter_sizes: expected filters of at most data.max_length={config.data.max_length} tokens, got "
            f"{widest}; lower it, or raise data.max_length"
        )
    try:
        with torch.device("meta"):
            weights = sum(weight.numel() for weight in new_student(student).parameters())
    except KDError:
        raise
    except Exception as error:  # of the many that a library raises for odd sizes
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise KDError(f"{place}: expected sizes of which a model can be made, found others ({reason})") from error
    if weights > MOST_WEIGHTS:
        raise KDError(f"{place}: expected at most {MOST_WEIGHTS:,} weights, got {weights:,}; lower its sizes")
    return student


def _check_method(config: DictConfig, kind: type[Method], options: Any, student: Any, mistakes: Mistakes) -> None:
    """Check what a method with a second model needs beyond its own options.

    The options of the method are None if they are wrong, and so is the configuration of the student.
    """
    if contradictions.is_ensemble(config.teacher) and not config.cache.use:
        mistakes.append("an ensemble reads its outputs from the cache, member by member; leave cache.use=true")
    mistakes += mistakes.attempt(contradictions.OF_METHOD[kind], config) or []
    for name, node in config.loss.items():
        term = mistakes.attempt(make, node)
        if term and student:
            mistakes.attempt(check_outputs, name, term.needs, student, "student")
    objective = mistakes.attempt(build.objective, config)
    if objective and options:
        partners = {"teacher": bool(config.teacher)} if kind is Joint else {}
        mistakes.attempt(kind.require, objective, options, **partners)
