"""The base of the small students: a word table, a sentence encoder and a linear head.

B rows, L tokens, E embedding width, C labels. A student is a `transformers.PreTrainedModel`. To add one, subclass
`Student`, write `encode`, and register the class in ``kd/models/__init__.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.errors import KDError, OptionError
from kd.losses.label import label_loss
from kd.options.declared import Count, CountOrNone, Probability, Spread, Width, options_of


class OwnConfig(PreTrainedConfig):
    """The options of all of kd's students; ``num_labels`` and ``id2label`` come from Hugging Face's own class.

    Args:
        vocab_size: number of tokens that the student's tokenizer knows.
        pad_token_id: id of the padding token, which a student does not read.

    Raises:
        OptionError: an option is outside its range.
    """

    vocab_size: Count = 30522
    pad_token_id: CountOrNone = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name, option in options_of(type(self)).items():
            option.require(getattr(self, name))
        if self.pad_token_id >= self.vocab_size:
            raise OptionError("pad_token_id", f"below vocab_size={self.vocab_size}", self.pad_token_id)


class StudentConfig(OwnConfig):
    """The options of every small student with a word table.

    Args:
        vocab_size: rows of the word table.
        pad_token_id: id of the padding token, whose row of the table is zero and stays zero.
        embedding_size: width of the word table.
        dropout: probability of setting a number to zero, at the input of every linear, convolution and LSTM map.
        freeze_embeddings: keep the word table as it is in training.
        initializer_range: standard deviation of a random word table.

    Raises:
        OptionError: an option is outside its range.
    """

    supported_outputs: ClassVar[frozenset[str]] = frozenset({"logits", "hidden_states"})

    embedding_size: Width = 128
    dropout: Probability = 0.3
    freeze_embeddings: bool = False
    initializer_range: Spread = 0.02


class Student(PreTrainedModel, ABC):
    """Word table -> `encode` -> dropout -> linear head.

    Padding changes no logit: for `encode`, tokens outside the attention mask are zero vectors, and an empty text is
    one zero vector.
    """

    config: StudentConfig
    _input_embed_layer = "embedding"  # for get_input_embeddings and set_input_embeddings

    def __init__(self, config: StudentConfig, sentence_size: int):
        super().__init__(config)
        self.embedding = self.new_table(config)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(sentence_size, cast(int, config.num_labels))

    def new_table(self, config: StudentConfig) -> nn.Embedding:
        """Return the word table; a student that reads something else than words has another one."""
        return nn.Embedding(config.vocab_size, config.embedding_size, config.pad_token_id)

    @abstractmethod
    def encode(self, embedded: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return the states above the embeddings, lowest first.

        Args:
            embedded: [B, L, E], zero outside the mask.
            mask: [B, L], bool, at least one True in each row.

        Returns:
            token states [B, L, d] and sentence states [B, 1, d]. The last is a sentence state, the input of the head.
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
        """Classify; further arguments, such as ``token_type_ids``, are ignored.

        Args:
            input_ids: [B, L].
            attention_mask: [B, L], 1 for a token; without it every id but the padding is a token.
            labels: [B]; rows with -100 add nothing to the loss.
            inputs_embeds: [B, L, E], instead of ``input_ids``.
            output_hidden_states: return the embeddings and the states of `encode`.
            output_attentions: refused.

        Returns:
            loss (mean cross-entropy of the labelled rows; 0 if there are none; None without labels), logits [B, C],
            hidden_states.

        Raises:
            KDError: ``output_attentions`` is set, or the inputs are not exactly one of ids and embeddings.
        """
        if output_attentions or self.config.output_attentions:
            raise KDError(
                f"student '{self.config.model_type}' gives no attention maps, found output_attentions=true; "
                "use the losses hint, relation or logits, or student=transformer"
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
            found = "neither" if input_ids is None else "both"
            raise KDError(f"expected input_ids or inputs_embeds, found {found}; give exactly one of them")
        mask = token_mask(attention_mask, input_ids, inputs_embeds, self.config.pad_token_id)
        # The tokenizer returns a batch of empty texts as a float tensor without columns.
        vectors = cast(Tensor, inputs_embeds) if input_ids is None else self.embedding(input_ids.long())
        vectors, mask = not_empty(vectors, mask)
        return vectors * mask.unsqueeze(-1), with_a_token(mask)

    def _init_weights(self, module: nn.Module) -> None:
        # Hugging Face draws every map with std 0.02, which suits deep residual encoders. Shallow networks train
        # faster from torch's initialisation, which is scaled by the fan-in.
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.LSTM)):
            module.reset_parameters()
        else:
            super()._init_weights(module)


def token_mask(
    attention_mask: Tensor | None, input_ids: Tensor | None, vectors: Tensor | None, pad_token_id: int | None
) -> Tensor:
    """Return [B, L], bool: the given mask, or every id except the padding, or all positions of the vectors."""
    if attention_mask is not None:
        return attention_mask.bool()
    if input_ids is not None and pad_token_id is not None:
        return input_ids != pad_token_id
    read = cast(Tensor, vectors if input_ids is None else input_ids)
    return torch.ones(read.shape[:2], dtype=torch.bool, device=read.device)


def not_empty(vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors [B, L, d] and mask [B, L]; if L is 0, both with one position of padding."""
    if mask.shape[1] == 0:
        return F.pad(vectors, (0, 0, 0, 1)), F.pad(mask, (0, 1))
    return vectors, mask


def with_a_token(mask: Tensor) -> Tensor:
    """Return the mask [B, L] with the first position set in each row that has no token."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (first & ~mask.any(dim=1, keepdim=True))


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of states [B, L, d] over the tokens, [B, 1, d]; zero for a row whose mask [B, L] has no token."""
    weights = mask.to(states.dtype).unsqueeze(1)
    return weights @ states / weights.sum(dim=2, keepdim=True).clamp(min=1)


def masked_max(states: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum of states [B, L, d] over the tokens, [B, 1, d]; the bool mask [B, L] has one in each row."""
    return states.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(dim=1, keepdim=True)
