"""Bags of words: students that read the mean of the word vectors, without word order."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from kd.models.base import Student, StudentConfig, masked_mean
from kd.options.declared import DepthOrNone, Probability, Width


class MLPConfig(StudentConfig):
    """The options of an `MLP`.

    Args:
        hidden_size: width of a hidden layer.
        num_layers: number of hidden layers; with 0 the head reads the mean embedding.
    """

    model_type = "kd-mlp"

    hidden_size: Width = 128
    num_layers: DepthOrNone = 1


class DANConfig(MLPConfig):
    """The options of a `DAN`.

    Args:
        word_dropout: probability that a token is left out of the mean in training.
    """

    model_type = "kd-dan"

    num_layers: DepthOrNone = 2
    word_dropout: Probability = 0.3


class MLP(Student):
    """Mean embedding -> hidden layers -> head. The states are the mean and each hidden layer, [B, 1, d]."""

    config_class = MLPConfig

    def __init__(self, config: MLPConfig):
        super().__init__(config, sentence_size=config.hidden_size if config.num_layers else config.embedding_size)
        widths = [config.embedding_size] + [config.hidden_size] * config.num_layers
        self.layers = nn.ModuleList(nn.Linear(below, above) for below, above in pairwise(widths))
        self.post_init()

    def encode(self, embedded: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        states = [masked_mean(embedded, mask)]
        for layer in self.layers:
            states.append(layer(self.dropout(states[-1])).relu())
        return tuple(states)


class DAN(MLP):
    """Deep averaging network: an `MLP` whose mean leaves out random words in training.

    Source: Iyyer et al., Deep Unordered Composition Rivals Syntactic Methods for Text Classification, 2015,
    https://aclanthology.org/P15-1162
    """

    config_class = DANConfig
    config: DANConfig

    def encode(self, embedded: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        if self.training:
            mask = drop_words(mask, self.config.word_dropout)
        return super().encode(embedded, mask)


def drop_words(mask: Tensor, probability: float) -> Tensor:
    """Return the mask [B, L] without each token at random; a row that would lose all tokens keeps all."""
    kept = mask & (torch.rand(mask.shape, device=mask.device) >= probability)
    return torch.where(kept.any(dim=1, keepdim=True), kept, mask)
