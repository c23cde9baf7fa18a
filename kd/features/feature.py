"""Name the inner outputs of a model that a loss reads, and compute them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from kd.contract import ATTENTION_OUTPUTS, Batch
from kd.errors import KDError
from kd.features import attention


@dataclass(frozen=True)
class Feature:
    """One inner output of a model.

    Args:
        output: "hidden_states", "queries", "keys" or "values".
        layer: 0 for the embeddings, 1 for the lowest layer; attention has no layer 0.
        pooling: how the tokens' vectors become one vector for the text ("mean" or "cls"); None keeps all of them.
        member: name of the model in an ensemble of teachers.
    """

    output: str
    layer: int
    pooling: str | None = None
    member: str = ""

    @property
    def column(self) -> str:
        """The feature's name in the cache; a batch has it under ``teacher_`` and this name."""
        owner = f"{self.member}." if self.member else ""
        return f"{owner}{self.output}-{self.layer}-{self.pooling or 'tokens'}"


def pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Return one vector for each text.

    Args:
        states: ``[B, L, d]``.
        mask: ``[B, L]``, 1 for a token.
        pooling: "mean" over the tokens, or "cls", the first token.

    Returns:
        ``[B, d]``; zero for a text without tokens.
    """
    mask = mask.to(states.dtype)
    if pooling == "cls":
        return states[:, 0] * mask[:, :1]
    # Not a product with the mask: padding may hold nan, and nan times 0 is nan.
    real = torch.where(mask.unsqueeze(-1) > 0, states, 0)
    return real.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def bytes_a_row(config: PretrainedConfig, feature: Feature, tokens: float) -> float:
    """Return the bytes of a row in the cache, in half precision, for this number of tokens."""
    width = config.hidden_size
    if feature.output != "hidden_states":  # heads may be wider than the hidden states
        heads = config.num_attention_heads
        width = heads * (getattr(config, "head_dim", None) or width // heads)
    return 2 * width * (1 if feature.pooling else tokens)


def read(model: PreTrainedModel, inputs: Batch, features: Collection[Feature]) -> tuple[Tensor, dict[Feature, Tensor]]:
    """Run a transformer once and return its logits and features.

    Args:
        model: a classifier; for features of attention, after `kd.features.attention.prepare`.
        inputs: ``input_ids`` and ``attention_mask`` ``[B, L]``.
        features: those to return.

    Returns:
        logits ``[B, C]``, and each feature ``[B, d]`` or, without pooling, ``[B, L, d]``, with its heads concatenated.
    """
    if not features:
        return model(**inputs).logits, {}
    output, triples = inner(model, inputs, {feature.output for feature in features})
    found = {}
    for feature in features:
        if feature.output == "hidden_states":
            states = output.hidden_states[feature.layer]
        else:
            heads = triples[feature.layer - 1][PLACES[feature.output]]
            states = heads.transpose(1, 2).flatten(2)  # side by side, as `split_heads` separates them
        found[feature] = pooled(states, inputs["attention_mask"], feature.pooling) if feature.pooling else states
    return output.logits, found


def inner(model: PreTrainedModel, inputs: Batch, outputs: Collection[str]) -> tuple[Any, list[attention.Triple]]:
    """Return the model's output, and (queries, keys, values) of each layer if the outputs name one of them.

    The model's output has hidden states if the outputs name them.
    """
    hidden = {"output_hidden_states": True} if "hidden_states" in outputs else {}
    if ATTENTION_OUTPUTS & set(outputs):
        return attention.recorded(model, **inputs, **hidden)
    return model(**inputs, **hidden), []


PLACES = {"queries": 0, "keys": 1, "values": 2}


def split_heads(vectors: Tensor, heads: int) -> Tensor:
    """Separate heads: ``[B, L, H * d_head]`` -> ``[B, H, L, d_head]``."""
    return vectors.unflatten(-1, (heads, -1)).transpose(1, 2)


def depth_of(config: PretrainedConfig) -> int:
    """Return a teacher's number of layers; refuse a teacher without layers."""
    depth = getattr(config, "num_hidden_layers", None)
    if depth is None:
        raise KDError(
            f"expected a teacher with transformer layers, found '{config.model_type}' without; "
            "use a transformer as the teacher"
        )
    return depth
