"""Record the queries, keys and values of a transformer's attention layers.

The library transformers calls attention through one interface. `prepare` registers an implementation there that
computes the same as "sdpa". While `recorded` runs, it also keeps its inputs, with their graph. Saved folders do not
mention it.

Attention maps are recomputed from these inputs with the padding mask only. Causal models are therefore refused, and
the window of local layers, as in ModernBERT, is not recorded.
"""

from __future__ import annotations

import copy
import math
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.errors import KDError

IMPLEMENTATION = "kd_recording"

Triple = tuple[Tensor, Tensor, Tensor]

_record: ContextVar[list[Triple] | None] = ContextVar(IMPLEMENTATION, default=None)


def prepare(model: PreTrainedModel) -> None:
    """Make a model's attention layers ready for `recorded`; its outputs stay the same as with "sdpa".

    Raises:
        KDError: the model's attention is causal, or does not use the interface of transformers.
    """
    kind = model.config.model_type
    if any(getattr(module, "is_causal", False) for module in model.modules()):
        raise KDError(
            f"attention losses expect that every token attends to every other, found causal attention in '{kind}'; "
            "use hint or relation losses"
        )
    if model.is_backend_compatible():
        model.set_attn_implementation(IMPLEMENTATION)
    if model.config._attn_implementation != IMPLEMENTATION:
        raise KDError(
            f"attention losses expect attention through the interface of transformers, found another in '{kind}'; "
            "use hint or relation losses"
        )


def require_recordable(config: PretrainedConfig) -> None:
    """Refuse an architecture whose attention cannot be recorded, before any weight is loaded; see `prepare`.

    Raises:
        KDError: as for `prepare`.
    """
    with torch.device("meta"):
        prepare(AutoModelForSequenceClassification.from_config(copy.deepcopy(config)))


def recorded(model: PreTrainedModel, **inputs: Any) -> tuple[SequenceClassifierOutput, list[Triple]]:
    """Run a prepared model once and keep the inputs of its attention layers.

    Args:
        inputs: as for the model's own ``forward``.

    Returns:
        the model's output, and (queries, keys, values) of each layer, lowest first, ``[B, H, L, d_head]`` each.
        Queries are not scaled: the input of the softmax is ``q k^T / sqrt(d_head)``. Keys and values that several
        heads share are repeated for each head.

    Raises:
        KDError: the number of attention layers is not ``config.num_hidden_layers``.
    """
    record: list[Triple] = []
    token = _record.set(record)
    try:
        output = model(**inputs)
    finally:
        _record.reset(token)
    if len(record) != model.config.num_hidden_layers:
        raise KDError(
            f"attention losses expect one attention call for each of the {model.config.num_hidden_layers} layers "
            f"of '{model.config.model_type}', found {len(record)}; use hint or relation losses"
        )
    return output, record


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    record = _record.get()
    if record is not None:
        record.append(_triple(query, key, value, **options))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def _triple(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **unread: Any,
) -> Triple:
    if position_bias is not None:
        raise KDError(
            "attention losses expect attention from queries and keys alone, found a position bias added to it; "
            "use hint or relation losses"
        )
    # The factor is 1 unless the architecture scales its queries itself, as ESM does.
    factor = 1.0 if scaling is None else scaling * math.sqrt(query.shape[-1])
    if not math.isclose(factor, 1.0):
        query = query * factor
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    return query, key, value


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
