"""A mean of hashed n-gram vectors: a huge table, of which each text reads a few rows, and a small head.

B rows, L tokens, M n-grams of a row, E table width. The n-grams are found and hashed inside the model from the token
ids alone.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd.errors import KDError
from kd.models.base import StudentConfig, masked_mean, not_empty, token_mask
from kd.models.bow import MLP, MLPConfig
from kd.models.ngram_keys import FACTOR, PRIME, Characters, Speller, in_buckets, require_range, word_keys
from kd.options.declared import Count, CountOrNone, Depth, DepthOrNone, Probability


class HashedNGramsConfig(MLPConfig):
    """The options of `HashedNGrams`.

    Args:
        buckets: rows of the table; n-grams with the same hash share a row.
        ngrams: number of words in the longest n-gram.
        characters: lengths of the character n-grams, as [3, 5]; 0 reads none. All those of a word count as much in the
            mean as one n-gram of words.
        ngram_dropout: probability that an n-gram is left out of the mean in training.
        sparse: give the table gradients of the rows that a batch reads alone, so that a step costs what these rows
            cost; the table then has no weight decay.
        spelled: number of character n-grams of the longest word; set when the student is made.
    """

    model_type = "kd-ngrams"

    num_layers: DepthOrNone = 2
    buckets: Count = 100_000
    ngrams: Depth = 4
    characters: Characters = 0
    ngram_dropout: Probability = 0.1
    sparse: bool = True
    spelled: CountOrNone = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        require_range(self.characters)
        if self.characters:
            self.characters = list(self.characters)  # type: ignore[assignment]  # as a saved configuration is read


class HashedNGrams(MLP, Speller):
    """Mean vector of the n-grams -> hidden layers -> head. Row 0 of the table is zero and stands for no n-gram.

    The states are the mean, twice, and each hidden layer, [B, 1, d]: there is no state for each token.

    Source: Ye et al., Sparse Distillation: Speeding Up Text Classification by Using Bigger Student Models, 2022,
    https://aclanthology.org/2022.naacl-main.169
    """

    config_class = HashedNGramsConfig
    config: HashedNGramsConfig

    def __init__(self, config: HashedNGramsConfig):
        super().__init__(config)
        self.new_spelling(config.characters, config.vocab_size, config.spelled)

    def new_table(self, config: StudentConfig) -> nn.Embedding:
        config = cast(HashedNGramsConfig, config)
        return nn.Embedding(config.buckets + 1, config.embedding_size, padding_idx=0, sparse=config.sparse)

    def _embed(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, inputs_embeds: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if input_ids is None or inputs_embeds is not None:
            raise KDError("student 'kd-ngrams' finds n-grams in input_ids, found inputs_embeds; give the ids of tokens")
        mask = token_mask(attention_mask, input_ids, None, self.config.pad_token_id)
        ids, mask = not_empty(input_ids.long().unsqueeze(-1), mask)
        rows, weights = self._rows(ids.squeeze(-1), mask)
        if self.training and self.config.ngram_dropout:
            weights = weights * (torch.rand(weights.shape, device=weights.device) >= self.config.ngram_dropout)
        weights = weights * (rows > 0)
        mean = self._mean(rows, weights.to(self.embedding.weight.dtype))
        return mean, torch.ones_like(mean[:, :, 0], dtype=torch.bool)

    def _rows(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of the table that a text reads, and their weights in the mean, both ``[B, M]``."""
        config = self.config
        rows = in_buckets(word_keys(ids, mask, config.ngrams, FACTOR, PRIME), config.buckets)
        weights = torch.ones_like(rows, dtype=torch.float32)
        if config.characters:
            keys = self.character_keys(ids, mask)
            counts = (keys >= 0).unflatten(1, (ids.shape[1], -1)).sum(dim=2, keepdim=True).clamp(min=1)
            share = (1.0 / counts).expand(-1, -1, config.spelled).flatten(1)
            hashed = ((keys + 1) * FACTOR % PRIME).masked_fill(keys < 0, -1)
            rows = torch.cat([rows, in_buckets(hashed, config.buckets)], dim=1)
            weights = torch.cat([weights, share], dim=1)
        return rows, weights

    def _mean(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted mean ``[B, 1, E]`` of rows of the table; zero where all weights are 0."""
        if torch.compiler.is_exporting():
            return masked_mean(self.embedding(rows), weights)
        total = weights.sum(dim=1, keepdim=True).clamp(min=1e-6)  # 0 where dropout leaves nothing
        table = self.embedding
        means = F.embedding_bag(
            rows, table.weight, mode="sum", per_sample_weights=weights / total, sparse=table.sparse, padding_idx=0
        )
        return means.unsqueeze(1)
