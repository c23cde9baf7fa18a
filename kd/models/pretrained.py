"""Any Hugging Face classifier as a student, and the one place where a student is made from its config."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from kd.errors import KDError
from kd.measure.inference import evaluating
from kd.storage.assets import resolve
from kd.storage.model_folder import load_config, local_model


def pretrained_config(name_or_path: str, vocab_size: int, num_labels: int, pad_token_id: int) -> PreTrainedConfig:
    """The config of a checkpoint, told the labels of this run; `new_student` then loads its weights.

    Args:
        name_or_path: a name on the hub (``org/model@commit`` pins it), a folder, or ``asset:NAME``. Code that comes
            with the checkpoint is never run.
        vocab_size: tokens that the student's tokenizer knows; the checkpoint keeps its own, larger table.

    Raises:
        KDError: no such checkpoint, one that asks for its code to be run, or the tokenizer is not its own.
    """
    try:
        folder = local_model(resolve(name_or_path), "student")
    except KDError as error:
        raise KDError(_unreadable(name_or_path, error)) from error
    config = load_config(folder)
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
                config.name_or_path,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
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
    if layers and not depth:
        raise KDError(f"method.frozen_layers: '{config.model_type}' has no layers to freeze, got {layers}; set it to 0")
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
    _, stack = _layers(model, layers)
    _, embeddings = _embeddings(model)
    for part in (embeddings, *stack[:layers]):
        part.requires_grad_(False)


@torch.no_grad()
def upper_part(model: PreTrainedModel, layers: int) -> PreTrainedModel:
    """What stands above the lowest layers, as a model of its own that shares its weights with the whole.

    It takes the hidden states after those layers as ``inputs_embeds`` ``[B, L, d]``, beside the attention mask, and
    gives what the whole gives.

    Args:
        model: a classifier on a transformer.
        layers: how many of the lowest are left out, with the embeddings.

    Raises:
        KDError: more layers than there are, or an architecture that does not come apart there.
    """
    (place, stack), (words, _) = _layers(model, layers), _embeddings(model)
    upper = copy.deepcopy(model, {id(part): part for part in chain(model.parameters(), model.buffers())})
    upper.set_submodule(place, nn.ModuleList(list(upper.get_submodule(place))[layers:]))
    upper.set_submodule(words, _Given())
    upper.config.num_hidden_layers = len(stack) - layers
    try:
        same = _answers_as(upper, model, layers)
        reason = "" if same else "what is left gives other logits"
    except Exception as error:  # architectures that do not come apart show it as any of a dozen kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    if reason:
        raise KDError(
            f"method.frozen_layers={layers}: '{model.config.model_type}' cannot go on from the output of its frozen "
            f"layers ({reason}); set cache.use=false"
        )
    return upper


class _Given(nn.Module):
    """In place of a transformer's embeddings: the states that it is given."""

    def forward(self, *inputs: Tensor | None, **named: Tensor | int | None) -> Tensor:
        given = (*inputs, *named.values())
        return next(value for value in given if isinstance(value, Tensor) and value.is_floating_point())


def _answers_as(upper: PreTrainedModel, whole: PreTrainedModel, layers: int) -> bool:
    """Whether the upper part gives the logits of the whole, on two random rows of unequal length."""
    ids = torch.randint(whole.config.vocab_size, (2, 6), generator=torch.Generator().manual_seed(0)).to(whole.device)
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    with evaluating(whole), evaluating(upper):
        expected = whole(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        found = upper(inputs_embeds=expected.hidden_states[layers], attention_mask=mask)
    return torch.allclose(found.logits, expected.logits, atol=1e-4, rtol=1e-4)


def _embeddings(model: PreTrainedModel) -> tuple[str, nn.Module]:
    """The part that turns tokens into vectors, with the name of its place in the model."""
    words, base = model.get_input_embeddings(), model.base_model
    prefix = f"{model.base_model_prefix}." if base is not model else ""
    return next(
        (prefix + name, part) for name, part in base.named_children() if any(m is words for m in part.modules())
    )


def _layers(model: PreTrainedModel, layers: int) -> tuple[str, nn.ModuleList]:
    """The stack of layers, which must hold so many, with the name of its place in the model."""
    depth = require_depth(model.config, layers)
    stacks = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(stacks) != 1:
        raise KDError(
            f"method.frozen_layers={layers}: '{model.config.model_type}' does not keep its layers one by one; "
            "set it to 0"
        )
    return stacks[0]


def _unreadable(name_or_path: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return (
        f"student.name_or_path must be a model on the hub or a folder with config.json and weights, "
        f"got '{name_or_path}' ({reason}); set student.name_or_path=..."
    )
