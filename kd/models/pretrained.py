"""Build a student from its config, load any Hugging Face classifier as a student, and freeze or cut its layers."""

from __future__ import annotations

import copy
from itertools import chain
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from kd.contract import Batch
from kd.errors import KDError
from kd.measure.inference import evaluating
from kd.models.fitted import FittedStudent
from kd.options.declared import Count, CountOrNone, checked
from kd.storage.assets import resolve
from kd.storage.model_check import rows_of
from kd.storage.model_folder import load_classifier, load_config, local_model


@checked
def pretrained_config(
    name_or_path: str, vocab_size: Count, num_labels: Count, pad_token_id: CountOrNone
) -> PreTrainedConfig:
    """Return the config of a checkpoint for the labels of this run; `new_student` then loads its weights.

    Args:
        name_or_path: a name on the hub (``org/model@commit`` pins it), a folder, or ``asset:NAME``. Code that comes
            with the checkpoint is never run.
        vocab_size: size of the tokenizer's vocabulary; the checkpoint keeps its own table, which must not be smaller.
        num_labels: number of labels.
        pad_token_id: id of the padding token.

    Raises:
        KDError: there is no such checkpoint, it needs its own code to be run, or the tokenizer does not belong to it.
    """
    try:
        folder = local_model(resolve(name_or_path), "student")
    except KDError as error:
        raise KDError(_unreadable(name_or_path, error)) from error
    config = load_config(folder)
    rows = rows_of(config)
    if rows is not None and vocab_size > rows:
        raise KDError(
            f"student '{name_or_path}' has a vocabulary of {rows} tokens, found a tokenizer with "
            f"{vocab_size}; use the student's own: tokenizer=pretrained"
        )
    if config.num_labels != num_labels:
        config.num_labels = num_labels
    config.pad_token_id = pad_token_id
    return config


def new_student(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a student of this config, with the weights of the checkpoint that the config comes from, or random ones.

    The student is in float32, also if the checkpoint is in half precision. The word table takes no gradient if the
    config has ``freeze_embeddings``.

    Raises:
        KDError: the weights cannot be read, or no model has these sizes.
    """
    try:
        if config.name_or_path:
            # another number of labels needs a new head
            student = load_classifier(Path(config.name_or_path), new_head=True, config=config)
        else:
            student = AutoModelForSequenceClassification.from_config(config)
    except KDError:
        raise
    except ValueError as error:
        raise KDError(f"student '{config.model_type}': {error}; change the sizes under student.") from error
    if not isinstance(student, FittedStudent):
        student.get_input_embeddings().weight.requires_grad_(not getattr(config, "freeze_embeddings", False))
    return student


def require_depth(config: PreTrainedConfig, layers: int) -> int:
    """Return the number of layers of a transformer.

    Raises:
        KDError: it has fewer than ``layers``.
    """
    depth = getattr(config, "num_hidden_layers", 0)
    if layers and not depth:
        raise KDError(f"method.frozen_layers: '{config.model_type}' has no layers to freeze, got {layers}; set it to 0")
    if layers > depth:
        raise KDError(f"method.frozen_layers: the teacher has {depth} layers, got {layers}; give 0 to {depth}")
    return depth


def freeze_lowest(model: PreTrainedModel, layers: int) -> None:
    """Freeze the embeddings and the lowest layers of a transformer; 0 freezes nothing.

    Raises:
        KDError: the model has fewer layers, or its architecture does not keep them in one list.
    """
    if layers == 0:
        return
    _, stack = _layers(model, layers)
    _, embeddings = _embeddings(model)
    for part in (embeddings, *stack[:layers]):
        part.requires_grad_(False)


@torch.no_grad()
def upper_part(model: PreTrainedModel, layers: int) -> PreTrainedModel:
    """Return the layers above the lowest ones as a model that shares its weights with the whole.

    Its input is the output of the lowest layers as ``inputs_embeds`` ``[B, L, d]`` with the attention mask; its output
    equals that of the whole.

    Args:
        model: a classifier on a transformer.
        layers: number of the lowest layers to leave out, with the embeddings.

    Raises:
        KDError: the model has fewer layers, or its architecture cannot be divided there.
    """
    (place, stack), (words, _) = _layers(model, layers), _embeddings(model)
    upper = copy.deepcopy(model, {id(part): part for part in chain(model.parameters(), model.buffers())})
    upper.set_submodule(place, cast(nn.ModuleList, upper.get_submodule(place))[layers:])
    upper.set_submodule(words, _Given())
    upper.config.num_hidden_layers = len(stack) - layers
    inputs = two_rows(model, 6)
    try:
        with evaluating(model), evaluating(upper):
            whole = model(**inputs, output_hidden_states=True)
            found = upper(inputs_embeds=whole.hidden_states[layers], attention_mask=inputs["attention_mask"])
        same = torch.allclose(found.logits, whole.logits, atol=1e-4, rtol=1e-4)
        reason = "" if same else "the upper part gives other logits"
    except Exception as error:  # what an architecture that cannot be divided raises differs from one to the next
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    if reason:
        raise KDError(
            f"method.frozen_layers={layers}: '{model.config.model_type}' cannot go on from the output of its frozen "
            f"layers ({reason}); set cache.use=false"
        )
    return upper


class _Given(nn.Module):
    """A stand-in for a transformer's embeddings that returns the states in its input."""

    def forward(self, *inputs: Tensor | None, **named: Tensor | int | None) -> Tensor:
        given = (*inputs, *named.values())
        return next(value for value in given if isinstance(value, Tensor) and value.is_floating_point())


def two_rows(model: PreTrainedModel, length: int) -> Batch:
    """Return random ids and the mask of two rows; the second is shorter, so that padding is compared too."""
    ids = torch.randint(model.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, (length + 1) // 2 :] = 0
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


def _embeddings(model: PreTrainedModel) -> tuple[str, nn.Module]:
    """Return the module that turns tokens into vectors, with its name in the model."""
    words, base = model.get_input_embeddings(), model.base_model
    prefix = f"{model.base_model_prefix}." if base is not model else ""
    return next(
        (prefix + name, part) for name, part in base.named_children() if any(m is words for m in part.modules())
    )


def _layers(model: PreTrainedModel, layers: int) -> tuple[str, nn.ModuleList]:
    """Return the list of layers, at least ``layers`` of them, with its name in the model."""
    depth, stacks = require_depth(model.config, layers), layer_lists(model)
    if len(stacks) != 1:
        raise KDError(
            f"method.frozen_layers={layers}: '{model.config.model_type}' must keep its {depth} layers in one list, "
            f"found {len(stacks)} such lists; set it to 0"
        )
    return stacks[0]


def layer_lists(model: PreTrainedModel) -> list[tuple[str, nn.ModuleList]]:
    """Return the lists of modules, with their names, that have one entry for each layer of a transformer."""
    depth = getattr(model.config, "num_hidden_layers", 0)
    return [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth]


def _unreadable(name_or_path: str | None, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return (
        f"student.name_or_path must be a model on the hub or a folder with config.json and weights, "
        f"got '{name_or_path}' ({reason}); set student.name_or_path=..."
    )
