"""What the small students share: a word table, a sentence encoder, a linear head.

B rows, L tokens, E embedding width, C labels. A student is a `transformers.PreTrainedModel`; a new one
subclasses `Student`, writes `encode`, and is named once in ``kd/models/__init__.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.contract import IGNORED_LABEL
from kd.errors import KDError


class StudentConfig(PreTrainedConfig):
    """What every small student is told. ``num_labels`` and ``id2label`` are Hugging Face's own.

    Args:
        vocab_size: rows of the word table.
        embedding_size: E.
        pad_token_id: this row of the table is zero and stays zero.
        dropout: probability at the input of every linear, convolution and LSTM map.
        freeze_embeddings: `kd.models.pretrained.new_student` then keeps the word table out of training.
        initializer_range: standard deviation of a table that nothing else fills.

    Raises:
        KDError: a value out of its range.
    """

    supported_outputs: ClassVar[frozenset[str]] = frozenset({"logits", "hidden_states"})

    vocab_size: int = 30522
    embedding_size: int = 128
    pad_token_id: int = 0
    dropout: float = 0.3
    freeze_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any):
        super().__post_init__(**kwargs)
        self.require_at_least(1, "vocab_size", "embedding_size")
        self.require_probability("dropout")
        if not 0 <= self.pad_token_id < self.vocab_size:
            self.refuse("pad_token_id", f"an id in [0, vocab_size={self.vocab_size})")
        if self.initializer_range <= 0:
            self.refuse("initializer_range", "a number above 0")

    def require_at_least(self, least: int, *names: str) -> None:
        """Refuse these values unless each is an integer of at least so much."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                self.refuse(name, f"an integer of at least {least}")

    def require_probability(self, *names: str) -> None:
        """Refuse these values unless each is a number in [0, 1)."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < 1:
                self.refuse(name, "a number in [0, 1)")

    def refuse(self, name: str, expected: str) -> None:
        """Raise the KDError that says what was expected, what was found, and what to set."""
        raise KDError(f"student.{name} must be {expected}, got {getattr(self, name)!r}; set student.{name}=...")


class Student(PreTrainedModel, ABC):
    """Word table -> `encode` -> dropout -> linear head.

    Tokens outside the attention mask are zero vectors for `encode`, and a row without any token reads as
    one zero vector: padding changes no logit, and an empty text is no special case.
    """

    config: StudentConfig

    def __init__(self, config: StudentConfig, sentence_size: int):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(sentence_size, config.num_labels)

    @abstractmethod
    def encode(self, embedded: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The states above the embeddings, lowest first.

        Args:
            embedded: [B, L, E], zero outside the mask.
            mask: [B, L], bool, at least one True a row.

        Returns:
            token states [B, L, d] and sentence states [B, 1, d]; the last one, a sentence state, feeds
            the head.
        """

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **ignored: Any,
    ) -> SequenceClassifierOutput:
        """Classify; ``token_type_ids`` and the like are accepted and ignored.

        Args:
            input_ids: [B, L].
            attention_mask: [B, L], 1 for a token; without it every id but the padding is a token.
            labels: [B]; rows with -100 add nothing to the loss.
            inputs_embeds: [B, L, E], instead of ``input_ids``.
            output_hidden_states: return the embeddings and the states of `encode`.
            output_attentions: refused.

        Returns:
            loss (mean cross-entropy of the labelled rows; 0 where there are none; None without labels),
            logits [B, C], hidden_states.

        Raises:
            KDError: attention maps asked for.
        """
        if output_attentions or self.config.output_attentions:
            raise KDError(
                f"student '{self.config.model_type}' gives no attention maps, and output_attentions asks for "
                "them; use the losses hint, relation or logits, or student=transformer"
            )
        embedded, mask = self._embed(input_ids, attention_mask, inputs_embeds)
        states = self.encode(embedded, mask)
        logits = self.head(self.dropout(states[-1].squeeze(1)))
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return SequenceClassifierOutput(
            loss=None if labels is None else label_loss(logits, labels),
            logits=logits,
            hidden_states=(embedded, *states) if output_hidden_states else None,
        )

    def _embed(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, inputs_embeds: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if (input_ids is None) == (inputs_embeds is None):
            raise KDError("a student reads input_ids or inputs_embeds; give exactly one of them")
        if input_ids is not None:
            # A batch of empty texts comes out of the tokenizer as a float tensor of no columns.
            inputs_embeds = self.embedding(input_ids.long())
            if attention_mask is None:
                attention_mask = input_ids != self.config.pad_token_id
        if attention_mask is None:
            attention_mask = torch.ones(inputs_embeds.shape[:2], device=inputs_embeds.device)
        mask = attention_mask.bool()
        if mask.shape[1] == 0:
            inputs_embeds, mask = F.pad(inputs_embeds, (0, 0, 0, 1)), F.pad(mask, (0, 1))
        embedded = inputs_embeds * mask.unsqueeze(-1)
        empty = ~mask.any(dim=1, keepdim=True)
        return embedded, torch.cat([mask[:, :1] | empty, mask[:, 1:]], dim=1)

    def get_input_embeddings(self) -> nn.Embedding:
        """The word table."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Put another word table in its place."""
        self.embedding = value

    def _init_weights(self, module: nn.Module) -> None:
        # Hugging Face draws every map with std 0.02, made for deep residual encoders: torch's own start,
        # scaled by the fan-in, trains shallow networks faster.
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.LSTM)):
            module.reset_parameters()
        else:
            super()._init_weights(module)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens.

    Args:
        states: [B, L, d].
        mask: [B, L], bool or 0/1.

    Returns:
        [B, 1, d]; zero where a row has no token.
    """
    weights = mask.to(states.dtype).unsqueeze(1)
    return weights @ states / weights.sum(dim=2, keepdim=True).clamp(min=1)


def masked_max(states: Tensor, mask: Tensor) -> Tensor:
    """Maximum over the tokens.

    Args:
        states: [B, L, d].
        mask: [B, L], bool, at least one True a row.

    Returns:
        [B, 1, d].
    """
    return states.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(dim=1, keepdim=True)
