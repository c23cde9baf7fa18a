"""Make the objects of a run from its configuration and from what is known only at run time, such as the labels."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from kd.config import targets
from kd.config.make import make, once
from kd.config.targets import plain
from kd.contract import FeatureLoss, Loss
from kd.data.batching import EncodedSplit, labels_of, tokenize
from kd.data.sources import Splits
from kd.errors import KDError, OptionError
from kd.features.matching import Matching
from kd.losses.label import LabelLoss
from kd.methods.base import Method, Recipe
from kd.methods.learning_rate import rate_factor
from kd.methods.objective import Objective
from kd.models.embeddings import KnownRows, TeacherTable
from kd.models.encoded import EncodedEmbeddings
from kd.models.fitted import FittedStudent
from kd.models.hashed import HashedNGrams
from kd.models.ngram_keys import Speller
from kd.models.pretrained import new_student
from kd.models.truncated import TruncatedConfig
from kd.options.declared import options_of
from kd.options.methods import METHODS, HintsOptions, MethodOptions
from kd.options.sections import Data
from kd.runtime.devices import global_batch
from kd.storage.model_folder import require_length, set_labels
from kd.teacher.base import AnyTeacher

log = logging.getLogger(__name__)


def splits(config: DictConfig) -> Splits:
    """Read the rows of the run with the function ``data._target_``; it gets those keys of ``data`` that it takes."""
    node = config.data.copy()
    parameters = inspect.signature(targets.find(node._target_, "data._target_")).parameters
    takes_others = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    with open_dict(node):
        for key in [key for key in node if key not in parameters and key != "_target_"]:
            if key in options_of(Data) or not takes_others:
                del node[key]
    return once("splits", config, (), lambda: make(node), lambda: plain(node))


def teacher(config: DictConfig) -> AnyTeacher | None:
    """Make the teacher, None for ``teacher=none``."""
    return once("teacher", config, ("teacher",), lambda: make(config.teacher)) if config.teacher else None


def method_class(config: DictConfig) -> type[Method]:
    """Find the class of the method."""
    found = targets.find(config.method._target_, "method._target_")
    if config.method._target_ not in METHODS:
        raise KDError(f"method._target_: expected one of {', '.join(METHODS)}, got '{config.method._target_}'")
    return found


def method_options(config: DictConfig) -> MethodOptions:
    """Make the options of the method. `kd.config.check` has refused options that it does not have."""
    values = {
        key: make(value) if OmegaConf.is_dict(value) else plain(value)
        for key, value in config.method.items()
        if key != "_target_"
    }
    try:
        return METHODS[config.method._target_](**values)
    except OptionError as error:
        raise error.at("method") from error


def tokenizer(config: DictConfig, texts: Iterable[str], teacher: AnyTeacher | None) -> PreTrainedTokenizerBase:
    """Make the student's tokenizer. Some choices learn it from the texts, or restrict its vocabulary to them."""
    theirs = teacher.tokenizer if teacher else None
    return once("tokenizer", config, WORDS, lambda: make(config.tokenizer)(texts, theirs))


WORDS = ("data", "teacher", "tokenizer")
"""Parts of the configuration that decide the student's vocabulary."""


def encoded(split, tokenizer: PreTrainedTokenizerBase, max_length: int, **columns: np.ndarray) -> EncodedSplit:
    """Tokenise a split for the student. The other columns, such as the teacher's logits, are kept beside the tokens."""
    tokens = tokenize(tokenizer, split["text"], max_length)
    return EncodedSplit(tokens, labels_of(split), tokenizer.pad_token_id, columns=columns)


def student_config(
    node: DictConfig,
    config: DictConfig,
    vocab_size: int,
    pad_token_id: int,
    label_names: list[str],
    teacher: AnyTeacher | None = None,
) -> PretrainedConfig:
    """Make the configuration of a student for the vocabulary and the labels of this run."""
    found = make(node, vocab_size=vocab_size, num_labels=len(label_names), pad_token_id=pad_token_id)
    if isinstance(found, TruncatedConfig) and teacher:
        found = found.of(teacher.config)
    require_length(found.model_type, found, config.data.max_length, "data.max_length")
    set_labels(found, label_names)
    return found


def student(
    config: DictConfig,
    tokenizer: PreTrainedTokenizerBase,
    label_names: list[str],
    teacher: AnyTeacher | None,
    node: DictConfig | None = None,
    seed: int | None = None,
) -> PreTrainedModel:
    """Make the student with its initial weights, which depend on the seed alone.

    Weights that come from the trained teacher are set later, by `kd.assembly.start`. If ``node`` or ``seed`` is given,
    it replaces ``config.student`` or ``config.seed``.
    """
    seed = config.seed if seed is None else seed
    node = config.student if node is None else node
    model_config = student_config(node, config, len(tokenizer), tokenizer.pad_token_id, label_names, teacher)
    torch.manual_seed(seed)
    model = new_student(model_config)
    if isinstance(model, Speller):
        model.spell(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))), tokenizer.all_special_ids)
    if isinstance(model, FittedStudent | HashedNGrams):  # it has no word table to start from
        return model
    weight = model.get_input_embeddings().get_parameter("weight")
    initial = word_table(config, weight.detach(), tokenizer, teacher, seed)
    with torch.no_grad():
        weight.copy_(initial)
    return model


def word_table(
    config: DictConfig, own: torch.Tensor, tokenizer: PreTrainedTokenizerBase, teacher: AnyTeacher | None, seed: int
) -> torch.Tensor:
    """Return the initial word table of a student ``[V, E]``, made from its own and from what ``embeddings`` chooses."""
    embeddings, width = make(config.embeddings), own.shape[1]
    if isinstance(embeddings, EncodedEmbeddings):
        embeddings.require(width, tokenizer, teacher.config.hidden_size if teacher else None)

    def known() -> KnownRows:
        source = TeacherTable(teacher.word_table, teacher.tokenizer) if teacher and embeddings.reads_teacher else None
        return embeddings.known(width, tokenizer, source)

    def facts() -> dict[str, Any]:
        return {"words": tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))), "width": width}

    rows = once("word table", config, (*WORDS, "embeddings"), known, facts)
    return embeddings.start(own, tokenizer, rows, torch.Generator().manual_seed(seed))


def losses(config: DictConfig, num_labels: int | None = None) -> dict[str, Loss]:
    """Make the transfer terms, by name. Log a warning for each that loses information with so few labels."""
    terms = {name: make(node) for name, node in config.loss.items()}
    for name, term in terms.items():
        if num_labels and (warning := term.degenerate(num_labels)):
            log.warning("loss '%s' with %d labels: %s", name, num_labels, warning)
    return terms


def objective(config: DictConfig, num_labels: int | None = None) -> Objective:
    """Make the objective: the transfer terms of `losses` and what balances them."""
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
    """Make the pairs of layers and the mappers for the feature losses among the terms."""
    features = {name: term for name, term in terms.items() if isinstance(term, FeatureLoss)}
    torch.manual_seed(config.seed)
    mapper = make(config.mapper)
    return Matching(features, student, teacher, options.layers, options.pooling, mapper, options.shared_mapper, member)


def method(config: DictConfig, student: PreTrainedModel, **known: Any) -> Method:
    """Make the LightningModule; ``known`` holds the arguments that only some methods take."""
    recipe = Recipe(LabelLoss(config.label_smoothing), optimizer(config), make(config.optim.schedule), config.seed)
    return method_class(config)(student, recipe, **known)


def optimizer(config: DictConfig) -> partial:
    """Return what makes the optimizer. ``optim.scale`` adapts the learning rate to the global batch."""
    node, batch = config.optim, global_batch(config)
    factor = rate_factor(node.scale, batch, node.reference_batch)
    if factor == 1:
        return make(node.optimizer)
    return make(node.optimizer, lr=node.optimizer.lr * factor)
