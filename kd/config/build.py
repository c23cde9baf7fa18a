"""The objects of a run, from its configuration.

Facts that are known only at run time (vocabulary size, labels, paths of the run) enter here, as arguments.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from kd.config import targets
from kd.config.make import make, once, plain
from kd.contract import FeatureLoss, Loss
from kd.data.batching import EncodedSplit, labels_of, tokenize
from kd.data.sources import Splits
from kd.errors import KDError, OptionError
from kd.features.matching import Matching
from kd.losses.label import LabelLoss
from kd.methods.base import Method
from kd.methods.learning_rate import rate_factor
from kd.methods.objective import Objective
from kd.models.embeddings import KnownRows, TeacherTable
from kd.models.pretrained import new_student
from kd.options.declared import options_of
from kd.options.methods import METHODS, HintsOptions, MethodOptions
from kd.runtime.devices import global_batch
from kd.storage.model_folder import label_settings, require_length
from kd.teacher.base import AnyTeacher

log = logging.getLogger(__name__)


def splits(config: DictConfig) -> Splits:
    """The rows of the run."""
    return once("splits", config, ("data.source",), lambda: make(config.data.source))


def teacher(config: DictConfig) -> AnyTeacher | None:
    """The teacher by name, None for ``teacher=none``."""
    return once("teacher", config, ("teacher",), lambda: make(config.teacher)) if config.teacher else None


def method_class(config: DictConfig) -> type[Method]:
    """Find the class of the method, for what it declares before there is an object."""
    return targets.find(config.method._target_, "method._target_")


def method_options(config: DictConfig) -> MethodOptions:
    """Make the options of the method.

    Raises:
        KDError: an option that it does not have, or a value outside its range.
    """
    values = {
        key: make(value) if OmegaConf.is_dict(value) else plain(value)
        for key, value in config.method.items()
        if key != "_target_"
    }
    kind = METHODS[config.method._target_]
    if unknown := set(values) - set(options_of(kind)):
        raise KDError(f"method: {config.choices.method} has no option {', '.join(sorted(unknown))}; leave it out")
    try:
        return kind(**values)
    except OptionError as error:
        raise error.at("method") from error


def tokenizer(config: DictConfig, texts: Iterable[str], teacher: AnyTeacher | None) -> PreTrainedTokenizerBase:
    """The student's tokenizer; where the choice says so, learnt from or restricted to the run's texts."""
    return once(
        "tokenizer", config, WORDS, lambda: make(config.tokenizer)(texts, teacher.tokenizer if teacher else None)
    )


WORDS = ("data", "teacher", "tokenizer")
"""What decides the student's words."""


def encoded(split, tokenizer: PreTrainedTokenizerBase, max_length: int, **columns: np.ndarray) -> EncodedSplit:
    """A split as the student reads it, with the columns that travel along."""
    tokens = tokenize(tokenizer, split["text"], max_length)
    return EncodedSplit(tokens, labels_of(split), tokenizer.pad_token_id, columns=columns)


def student_config(
    node: DictConfig, config: DictConfig, vocab_size: int, pad_token_id: int, label_names: list[str]
) -> PretrainedConfig:
    """The configuration of a student that knows this run's words and labels."""
    found = make(node, vocab_size=vocab_size, num_labels=len(label_names), pad_token_id=pad_token_id)
    require_length(found.model_type, found, config.data.max_length, "data.max_length")
    for key, value in label_settings(label_names).items():
        setattr(found, key, value)
    return found


def student(
    config: DictConfig,
    tokenizer: PreTrainedTokenizerBase,
    label_names: list[str],
    teacher: AnyTeacher | None,
    node: DictConfig | None = None,
    seed: int | None = None,
) -> PreTrainedModel:
    """The student as training starts; its weights depend on the seed alone.

    Args:
        node: instead of ``config.student``.
        seed: instead of ``config.seed``.
    """
    seed = config.seed if seed is None else seed
    node = config.student if node is None else node
    model_config = student_config(node, config, len(tokenizer), tokenizer.pad_token_id, label_names)
    torch.manual_seed(seed)
    model = new_student(model_config)
    table = model.get_input_embeddings()
    start = word_table(config, table.weight.detach(), tokenizer, teacher, seed)
    with torch.no_grad():
        table.weight.copy_(start)
    return model


def word_table(
    config: DictConfig, own: torch.Tensor, tokenizer: PreTrainedTokenizerBase, teacher: AnyTeacher | None, seed: int
) -> torch.Tensor:
    """What a student's word table ``[V, E]`` starts from, in place of its own."""
    embeddings, width = make(config.embeddings), own.shape[1]

    def known() -> KnownRows:
        reads = teacher is not None and embeddings.reads_teacher
        source = TeacherTable(teacher.word_table, teacher.tokenizer) if reads else None
        return embeddings.known(width, tokenizer, source)

    def facts() -> dict[str, Any]:
        return {"words": tokenizer.convert_ids_to_tokens(range(len(tokenizer))), "width": width}

    rows = once("word table", config, (*WORDS, "embeddings"), known, facts)
    return embeddings.start(own, tokenizer, rows, torch.Generator().manual_seed(seed))


def losses(config: DictConfig, num_labels: int | None = None) -> dict[str, Loss]:
    """The transfer terms by name; one that loses something with so few labels, where known, says so in the log."""
    terms = {name: make(node) for name, node in config.loss.items()}
    for name, term in terms.items():
        if num_labels and (said := term.degenerate(num_labels)):
            log.warning("loss '%s' with %d labels: %s", name, num_labels, said)
    return terms


def objective(config: DictConfig, num_labels: int | None = None) -> Objective:
    """The transfer terms and what balances them; see `losses`."""
    balance = config.balance
    return Objective(
        losses(config, num_labels),
        make(balance.alpha),
        make(balance.temperature),
        make(balance.confidence),
        make(balance.weighting),
        balance.calibrate,
        keeps_label=bool(config.method.get("student_weight")),
    )


def matching(
    config: DictConfig,
    options: HintsOptions,
    terms: Mapping[str, Loss],
    student: PreTrainedModel,
    teacher: PretrainedConfig,
    member: str = "",
) -> Matching:
    """The pairs of layers and the mappers of the feature losses among the terms."""
    features = {name: term for name, term in terms.items() if isinstance(term, FeatureLoss)}
    torch.manual_seed(config.seed)
    mapper = make(config.mapper)
    return Matching(features, student, teacher, options.layers, options.pooling, mapper, options.shared_mapper, member)


def method(config: DictConfig, student: PreTrainedModel, **known: Any) -> Method:
    """Make the LightningModule; ``known`` are the facts that only some methods take."""
    return method_class(config)(
        student=student,
        label_loss=LabelLoss(config.label_smoothing),
        optimizer=optimizer(config),
        schedule=make(config.optim.schedule),
        seed=config.seed,
        **known,
    )


def optimizer(config: DictConfig) -> partial:
    """What makes the optimizer; its learning rate follows the global batch where ``optim.scale`` says so."""
    node, batch = config.optim, global_batch(config)
    factor = rate_factor(node.scale, batch, node.reference_batch)
    if factor == 1:
        return make(node.optimizer)
    return make(node.optimizer, lr=node.optimizer.lr * factor)
