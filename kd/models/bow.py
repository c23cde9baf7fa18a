"""Bags of words: students that read the mean of the word vectors and no word order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kd.models.base import Student, StudentConfig, masked_mean


class MLPConfig(StudentConfig):
    """Args:
    hidden_size: width of a hidden layer.
    num_layers: hidden layers; 0 leaves ``Linear(embedding_size, num_labels)`` on the mean embedding.
    """

    model_type = "kd-mlp"

    hidden_size: int = 128
    num_layers: int = 1

    def __post_init__(self, **kwargs: Any):
        super().__post_init__(**kwargs)
        self.require_at_least(1, "hidden_size")
        self.require_at_least(0, "num_layers")


class DANConfig(StudentConfig):
    """Args:
    hidden_size: width of a hidden layer.
    num_layers: hidden layers.
    word_dropout: probability that a token is left out of the mean while training.
    """

    model_type = "kd-dan"

    hidden_size: int = 128
    num_layers: int = 2
    word_dropout: float = 0.3

    def __post_init__(self, **kwargs: Any):
        super().__post_init__(**kwargs)
        self.require_at_least(1, "hidden_size")
        self.require_at_least(0, "num_layers")
        self.require_probability("word_dropout")


class MLP(Student):
    """Mean embedding -> hidden layers -> head; the states are the mean and each hidden layer, [B, 1, d]."""

    config_class = MLPConfig

    def __init__(self, config: MLPConfig):
        super().__init__(config, sentence_size=_sentence_size(config))
        self.layers = _hidden_layers(config)
        self.post_init()

    def encode(self, embedded: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The mean and each hidden layer, [B, 1, d]."""
        return _climb(masked_mean(embedded, mask), self.layers, self.dropout)


class DAN(Student):
    """Deep averaging network: `MLP` whose mean forgets random words while training.

    Source: Iyyer et al., Deep Unordered Composition Rivals Syntactic Methods for Text Classification, 2015,
    https://aclanthology.org/P15-1162
    """

    config_class = DANConfig

    def __init__(self, config: DANConfig):
        super().__init__(config, sentence_size=_sentence_size(config))
        self.layers = _hidden_layers(config)
        self.post_init()

    def encode(self, embedded: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The mean, of fewer words while training, and each hidden layer, [B, 1, d]."""
        if self.training:
            mask = drop_words(mask, self.config.word_dropout)
        return _climb(masked_mean(embedded, mask), self.layers, self.dropout)


def drop_words(mask: Tensor, probability: float) -> Tensor:
    """A mask [B, L] with each token taken out at random; a row that would lose all keeps all."""
    kept = mask & (torch.rand(mask.shape, device=mask.device) >= probability)
    return torch.where(kept.any(dim=1, keepdim=True), kept, mask)


def _sentence_size(config: MLPConfig | DANConfig) -> int:
    return config.hidden_size if config.num_layers else config.embedding_size


def _hidden_layers(config: MLPConfig | DANConfig) -> nn.ModuleList:
    widths = [config.embedding_size] + [config.hidden_size] * config.num_layers
    return nn.ModuleList(nn.Linear(below, above) for below, above in pairwise(widths))


def _climb(state: Tensor, layers: nn.ModuleList, dropout: nn.Dropout) -> tuple[Tensor, ...]:
    states = [state]
    for layer in layers:
        states.append(layer(dropout(states[-1])).relu())
    return tuple(states)
