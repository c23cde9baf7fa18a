"""Any Hugging Face classifier as a student, and the one place where a student is made from its config."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from kd.assets import resolve
from kd.errors import KDError


def pretrained_config(name_or_path: str, vocab_size: int, num_labels: int, pad_token_id: int) -> PreTrainedConfig:
    """The config of a checkpoint, told the labels of this run; `new_student` then loads its weights.

    Args:
        name_or_path: a name on the hub, a folder, or ``asset:NAME``. Code that comes with the checkpoint is never run.
        vocab_size: tokens that the student's tokenizer knows; the checkpoint keeps its own, larger table.

    Raises:
        KDError: no such checkpoint, or the tokenizer is not the checkpoint's own.
    """
    try:
        config = AutoConfig.from_pretrained(resolve(name_or_path), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise KDError(_unreadable(name_or_path, error)) from error
    if vocab_size > config.vocab_size:
        raise KDError(
            f"student '{name_or_path}' knows {config.vocab_size} tokens, and the tokenizer has {vocab_size}; "
            "use its own: tokenizer=pretrained"
        )
    if config.num_labels != num_labels:
        config.num_labels = num_labels
    config.pad_token_id = pad_token_id
    return config


def new_student(config: PreTrainedConfig) -> PreTrainedModel:
    """A student of this config: with the weights of the checkpoint that it came from, else random.

    In float32, even where the checkpoint is stored in half precision. The word table takes no gradient where
    the config has ``freeze_embeddings``.

    Raises:
        KDError: weights that cannot be read, or sizes that make no model.
    """
    try:
        if config.name_or_path:
            student = AutoModelForSequenceClassification.from_pretrained(
                config.name_or_path, config=config, dtype=torch.float32, ignore_mismatched_sizes=True
            )
        else:
            student = AutoModelForSequenceClassification.from_config(config)
    except OSError as error:
        raise KDError(_unreadable(config.name_or_path, error)) from error
    except ValueError as error:
        raise KDError(f"student '{config.model_type}': {error}; change the sizes under student.") from error
    student.get_input_embeddings().weight.requires_grad_(not getattr(config, "freeze_embeddings", False))
    return student


def require_depth(config: PreTrainedConfig, layers: int) -> int:
    """The depth of a transformer, which must have so many layers.

    Raises:
        KDError: it has fewer.
    """
    depth = getattr(config, "num_hidden_layers", 0)
    if layers > depth:
        raise KDError(f"method.frozen_layers: the teacher has {depth} layers, got {layers}; give 0 to {depth}")
    return depth


def freeze_lowest(model: PreTrainedModel, layers: int) -> None:
    """Take the embeddings and the lowest layers of a transformer out of training; 0 leaves everything in.

    Raises:
        KDError: more layers than there are, or an architecture whose layers are not kept one by one.
    """
    if layers == 0:
        return
    depth = require_depth(model.config, layers)
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(stacks) != 1:
        raise KDError(
            f"method.frozen_layers={layers}: '{model.config.model_type}' does not keep its layers one by one; "
            "set it to 0"
        )
    words = model.get_input_embeddings()
    embeddings = [part for part in model.base_model.children() if any(m is words for m in part.modules())]
    for part in (*embeddings, *stacks[0][:layers]):
        part.requires_grad_(False)


def _unreadable(name_or_path: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return (
        f"student.name_or_path must be a model on the hub or a folder with config.json and weights, "
        f"got '{name_or_path}' ({reason}); set student.name_or_path=..."
    )
