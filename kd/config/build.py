"""Make the objects of a run from its configuration and from what is known only at run time, such as the labels."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
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
from kd.data.few_labels import with_labels
from kd.data.sources import Splits
from kd.errors import KDError, OptionError
from kd.features.matching import Matching
from kd.losses.label import LabelLoss, balanced
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
from kd.run.identity import content_of, has_transfer_set
from kd.runtime import ranks
from kd.runtime.devices import global_batch
from kd.storage.model_folder import require_length, set_labels
from kd.teacher.base import AnyTeacher
from kd.teacher.ensemble import of_seeds
from kd.transfer.base import Step
from kd.transfer.recipe import Known, TransferRecipe
from kd.transfer.rules import Rules
from kd.transfer.transfer_set import TransferSet

log = logging.getLogger(__name__)


def splits(config: DictConfig) -> Splits:
    """Read the rows of the run. If there are steps of ``transfer``, their texts are made, or found on disk.

    Their files are added to ``config.data.unlabelled``, where whatever reads the transfer set finds them.
    """
    found = given_rows(config)
    if not has_transfer_set(config):
        return found
    made = transfer_set(config, found)
    given = plain(config.data).get("unlabelled") or []
    config.data.unlabelled = [*([given] if isinstance(given, str) else given), *map(str, made.files)]
    found = given_rows(config)
    found.counts["transfer_set"] = made.facts()
    return found


def given_rows(config: DictConfig) -> Splits:
    """Read the rows that ``data`` names with the function ``data._target_``.

    The function gets those keys of ``data`` that it takes.
    """
    node = config.data.copy()
    with open_dict(node):
        for key in [key for key in node if key != "_target_" and not reads(config, key)]:
            del node[key]
    found = once("splits", config, (), lambda: make(node), lambda: plain(node))
    return with_labels(found, config.data.labelled) if config.data.get("labelled") else found


def reads(config: DictConfig, key: str) -> bool:
    """Return whether the function that reads the rows takes a key of ``data``."""
    parameters = inspect.signature(targets.find(config.data.get("_target_"), "data._target_")).parameters
    takes_others = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return key in parameters or (takes_others and key not in options_of(Data))


def transfer_set(config: DictConfig, splits: Splits) -> TransferSet:
    """Make the transfer set of the steps in ``transfer``, or find it on disk.

    Raises:
        KDError: the steps cannot make one, or the data set does not read ``data.unlabelled``.
    """
    if "unlabelled" not in config.data or not reads(config, "unlabelled"):
        raise KDError(
            "transfer: expected a data set that reads data.unlabelled, as data=files does, got "
            f"data={config.data.name}; give its rows as files"
        )
    steps = {name: make(node) for name, node in config.transfer.items()}
    require_mask_of_teacher(config, steps)
    options = {name: content_of(plain(node)) for name, node in config.transfer.items()}
    recipe = TransferRecipe(steps, options, config.transfer_seed, config.transfer_rows, config.data.text)
    made = TransferSet(Path(config.outputs), recipe, Known.of(splits))
    if not ranks.rank():
        log.info("%s", made.report())
    return made


def require_mask_of_teacher(config: DictConfig, steps: Mapping[str, Step]) -> None:
    """Refuse a mask that the teacher would read letter by letter.

    Raises:
        KDError: the teacher has another mask token than a step writes.
    """
    masks = {name: step.mask_token for name, step in steps.items() if isinstance(step, Rules) and step.mask}
    theirs = found.tokenizer.mask_token if masks and (found := teacher(config)) else None
    for name, mask in masks.items():
        if theirs and mask != theirs:
            raise KDError(
                f"transfer.{name}.mask_token: expected the mask token of the teacher, {theirs!r}, got {mask!r}; set "
                f"it, or transfer.{name}.mask=0"
            )


def teacher(config: DictConfig) -> AnyTeacher | None:
    """Make the teacher, None for ``teacher=none``."""
    return once("teacher", config, ("teacher",), lambda: of_seeds(make(config.teacher))) if config.teacher else None


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
    theirs = teacher.tokenizer if teacher and teacher.has_words else None
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


def label_loss(config: DictConfig, splits: Splits) -> LabelLoss:
    """Make the label loss. Its class weights may follow from the labels of the training rows.

    Raises:
        KDError: ``class_weights`` is a list of another length than the labels.
    """
    chosen, names = plain(config.get("class_weights", "none")), splits.label_names
    if isinstance(chosen, list) and len(chosen) != len(names):
        raise KDError(
            f"class_weights: expected {len(names)} numbers, one for each of {', '.join(names)}, got {len(chosen)}; "
            "give one for each label, or use class_weights=balanced"
        )
    weights = balanced(labels_of(splits.train), len(names)) if chosen == "balanced" else chosen
    return LabelLoss(config.label_smoothing, weights if isinstance(weights, list) else None)


def method(config: DictConfig, student: PreTrainedModel, splits: Splits, **known: Any) -> Method:
    """Make the LightningModule; ``known`` holds the arguments that only some methods take."""
    recipe = Recipe(label_loss(config, splits), optimizer(config), make(config.optim.schedule), config.seed)
    return method_class(config)(student, recipe, **known)


def optimizer(config: DictConfig) -> partial:
    """Return what makes the optimizer. ``optim.scale`` adapts the learning rate to the global batch."""
    node, batch = config.optim, global_batch(config)
    factor = rate_factor(node.scale, batch, node.reference_batch)
    if factor == 1:
        return make(node.optimizer)
    return make(node.optimizer, lr=node.optimizer.lr * factor)
