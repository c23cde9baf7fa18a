"""Configuration -> objects. The only caller of ``hydra.utils.instantiate``.

Facts that are known only at run time (vocabulary size, labels, paths of the run) enter here, as arguments.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.contract import Loss
from kd.data.batching import EncodedSplit, tokenize
from kd.data.sources import Splits
from kd.errors import KDError
from kd.losses.label import LabelLoss
from kd.methods.base import Method
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
    """Refuse numbers outside their range, all of them at once, before anything is downloaded or trained.

    Raises:
        KDError: with every mistake found.
    """
    mistakes = []
    for key, (kind, least) in NUMBERS.items():
        value = OmegaConf.select(config, key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind) or value < least):
            mistakes.append(f"{key}: expected {WORDS[kind]} of at least {least}, got {value!r}")
    if mistakes:
        raise KDError("; ".join(mistakes))


WORDS = {int: "a whole number", (int, float): "a number"}
NUMBERS: dict[str, tuple] = {
    "seed": (int, 0),
    "threads": (int, 1),
    "data.batch_size": (int, 1),
    "data.max_length": (int, 2),
    "teacher.epochs": (int, 1),
    "teacher.batch_size": (int, 1),
    "teacher.labelling_batch_size": (int, 1),
    "teacher.max_length": (int, 2),
    "teacher.seed": (int, 0),
    "teacher.learning_rate": ((int, float), 0),
    "teacher.weight_decay": ((int, float), 0),
    "teacher.warm_up": ((int, float), 0),
    "optim.optimizer.lr": ((int, float), 0),
    "optim.optimizer.weight_decay": ((int, float), 0),
    "trainer.max_epochs": (int, 1),
}


def splits(config: DictConfig) -> Splits:
    return make(config.data.source)


def teacher(config: DictConfig) -> Teacher | None:
    return make(config.teacher) if config.teacher else None


def method_class(config: DictConfig) -> type[Method]:
    return get_class(config.method._target_)


def tokenizer(config: DictConfig, data: Splits, teacher: Teacher | None) -> PreTrainedTokenizerBase:
    """The student's tokenizer, learnt from or restricted to the training texts where the choice says so."""
    return make(config.tokenizer)(data.train["text"], teacher.tokenizer if teacher else None)


def encoded(split, tokenizer: PreTrainedTokenizerBase, max_length: int, **columns: np.ndarray) -> EncodedSplit:
    """A split as the student reads it, with the columns that travel along."""
    tokens = tokenize(tokenizer, split["text"], max_length)
    return EncodedSplit(tokens, np.asarray(split["label"], np.int64), tokenizer.pad_token_id, columns=columns)


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
    model_config.id2label = dict(enumerate(label_names))
    model_config.label2id = {name: number for number, name in enumerate(label_names)}
    torch.manual_seed(config.seed)
    model = new_student(model_config)
    table = model.get_input_embeddings()
    generator = torch.Generator().manual_seed(config.seed)
    source = TeacherTable(teacher.word_table, teacher.tokenizer) if teacher else None
    start = make(config.embeddings)(table.weight.detach(), tokenizer, source, generator)
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
    callbacks = {name: _in_run(node, run) for name, node in config.callbacks.items()}
    loggers = [make(node, save_dir=str(run)) for node in config.logger.values()]
    return make(config.trainer, logger=loggers, callbacks=list(callbacks.values()), default_root_dir=str(run))


def _in_run(node: DictConfig, run: Path) -> Any:
    if node._target_.endswith("ModelCheckpoint"):
        return make(node, dirpath=str(run / "checkpoints"))
    return make(node)


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
