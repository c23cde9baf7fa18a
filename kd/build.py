"""Configuration -> objects. The only caller of ``hydra.utils.instantiate``.

Facts that are known only at run time (vocabulary size, labels, paths of the run) enter here, as arguments.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.contract import Loss
from kd.data.batching import EncodedSplit, labels_of, tokenize
from kd.data.sources import Splits
from kd.errors import KDError
from kd.losses.label import LabelLoss
from kd.methods.base import Method
from kd.methods.distillation import check_outputs
from kd.model_folder import require_length
from kd.models.embeddings import TeacherTable
from kd.models.pretrained import new_student
from kd.teacher import Teacher

log = logging.getLogger(__name__)


def make(node: DictConfig, **known: Any) -> Any:
    """Instantiate a node, with a user's mistake as the `KDError` that the constructor raised."""
    try:
        return instantiate(node, **known, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, KDError):
            raise error.__cause__ from error
        target = node.get("_target_", "?")
        raise KDError(f"'{target}' could not be made from its configuration: {error.__cause__ or error}") from error


def check(config: DictConfig) -> None:
    """Refuse what cannot work before anything is downloaded, trained or labelled: all mistakes at once.

    Raises:
        KDError: with every mistake found.
    """
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

    for key in ("student", "embeddings", "tokenizer", "optim", "trainer"):
        if OmegaConf.select(config, key) is None:
            mistakes.append(f"{key}: expected a choice, got null; kd train --help lists the choices")
    if mistakes:
        raise KDError("; ".join(mistakes))
    student = attempt(lambda: make(config.student, vocab_size=1, num_labels=2, pad_token_id=0))
    for node in (config.embeddings, config.tokenizer):
        attempt(lambda node=node: make(node))
    attempt(lambda: trainer(config, Path(config.outputs)))
    if config.teacher and config.teacher.get("fine_tune"):
        attempt(lambda: make(config.trainer, precision=config.teacher.precision, logger=False, callbacks=[]))
    attempt(lambda: _check_optimizer(config))
    if method_class(config).reads_teacher:
        if not config.loss:
            mistakes.append(f"method={config.choices.method} needs a transfer term, got none; use loss=[soft_target]")
        if not config.teacher:
            mistakes.append(
                f"method={config.choices.method} learns from a teacher, and teacher=none gives none; choose teacher=..."
            )
        for name, node in config.loss.items():
            term = attempt(lambda node=node: make(node))
            if term and student:
                attempt(lambda name=name, term=term: check_outputs(name, term.needs, student, "student"))
    if mistakes:
        raise KDError("; ".join(mistakes))


def _check_optimizer(config: DictConfig) -> None:
    try:
        optimizer = make(config.optim.optimizer)([torch.nn.Parameter(torch.zeros(1, 1))])
        make(config.optim.schedule)(optimizer, 10)
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
    "cache": _SWITCH,
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


def splits(config: DictConfig) -> Splits:
    """The rows of the run."""
    return make(config.data.source)


def teacher(config: DictConfig) -> Teacher | None:
    """The teacher by name, None for ``teacher=none``."""
    return make(config.teacher) if config.teacher else None


def method_class(config: DictConfig) -> type[Method]:
    """The method's class, for what it says before there is an object."""
    return get_class(config.method._target_)


def tokenizer(config: DictConfig, data: Splits, teacher: Teacher | None) -> PreTrainedTokenizerBase:
    """The student's tokenizer, learnt from or restricted to the training texts where the choice says so."""
    return make(config.tokenizer)(data.train["text"], teacher.tokenizer if teacher else None)


def encoded(split, tokenizer: PreTrainedTokenizerBase, max_length: int, **columns: np.ndarray) -> EncodedSplit:
    """A split as the student reads it, with the columns that travel along."""
    tokens = tokenize(tokenizer, split["text"], max_length)
    return EncodedSplit(tokens, labels_of(split), tokenizer.pad_token_id, columns=columns)


def student(
    config: DictConfig, tokenizer: PreTrainedTokenizerBase, label_names: list[str], teacher: Teacher | None
) -> PreTrainedModel:
    """The student as training starts; its weights depend on the seed alone."""
    model_config = make(
        config.student,
        vocab_size=len(tokenizer),
        num_labels=len(label_names),
        pad_token_id=tokenizer.pad_token_id,
    )
    require_length(model_config.model_type, model_config, config.data.max_length, "data.max_length")
    model_config.id2label = dict(enumerate(label_names))
    model_config.label2id = {name: number for number, name in enumerate(label_names)}
    torch.manual_seed(config.seed)
    model = new_student(model_config)
    table = model.get_input_embeddings()
    generator = torch.Generator().manual_seed(config.seed)
    embeddings = make(config.embeddings)
    reads = teacher is not None and embeddings.reads_teacher
    source = TeacherTable(teacher.word_table, teacher.tokenizer) if reads else None
    start = embeddings(table.weight.detach(), tokenizer, source, generator)
    with torch.no_grad():
        table.weight.copy_(start)
    return model


def losses(config: DictConfig, num_labels: int) -> dict[str, Loss]:
    """The transfer terms by name; one that loses something with so few labels says so in the log."""
    terms = {name: make(node) for name, node in config.loss.items()}
    for name, term in terms.items():
        if said := term.degenerate(num_labels):
            log.warning("loss '%s' with %d labels: %s", name, num_labels, said)
    return terms


def method(config: DictConfig, student: PreTrainedModel, **known: Any) -> Method:
    """The LightningModule; ``known`` are the facts that only some methods take."""
    return make(
        config.method,
        student=student,
        label_loss=LabelLoss(config.label_smoothing),
        optimizer=make(config.optim.optimizer),
        schedule=make(config.optim.schedule),
        seed=config.seed,
        **known,
    )


def trainer(config: DictConfig, run: Path) -> lightning.Trainer:
    """The Trainer, with loggers and callbacks that write into the run directory."""
    callbacks = [make(node, **_place(node, run)) for node in config.callbacks.values()]
    return make(
        config.trainer,
        logger=[make(node, save_dir=str(run)) for node in config.logger.values()] or False,
        callbacks=[*callbacks, Timer()],
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        default_root_dir=str(run),
    )


def _place(node: DictConfig, run: Path) -> dict[str, str]:
    return {"dirpath": str(run / node.dirpath)} if "dirpath" in node else {}


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
