"""TextCNN: filters of a few widths over the words, and the maximum of each over the text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kd.models.base import Student, StudentConfig, masked_max


class TextCNNConfig(StudentConfig):
    """Args:
    filter_sizes: widths of the filters, in tokens.
    num_filters: filters of each width.
    """

    model_type = "kd-textcnn"

    filter_sizes: tuple[int, ...] = (3, 4, 5)
    num_filters: int = 100

    def __post_init__(self, **kwargs: Any):
        super().__post_init__(**kwargs)
        self.filter_sizes = list(self.filter_sizes)
        if not self.filter_sizes or any(not isinstance(size, int) or size < 1 for size in self.filter_sizes):
            self.refuse("filter_sizes", "a list of one or more integers of at least 1")
        self.require_at_least(1, "num_filters")


class TextCNN(Student):
    """Convolutions -> ReLU -> maximum over time -> head.

    Filters see zero vectors beyond both ends of the text, one output a token, so that a text shorter than
    the widest filter needs nothing special. The states are the outputs [B, L, sizes * filters] and their
    maximum [B, 1, sizes * filters].

    Source: Kim, Convolutional Neural Networks for Sentence Classification, 2014,
    https://aclanthology.org/D14-1181
    """

    config_class = TextCNNConfig

    def __init__(self, config: TextCNNConfig):
        super().__init__(config, sentence_size=len(config.filter_sizes) * config.num_filters)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.embedding_size, config.num_filters, size, padding=size // 2)
            for size in config.filter_sizes
        )
        self.post_init()

    def encode(self, embedded: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The filters' outputs [B, L, d] and their maximum [B, 1, d]."""
        channels = self.dropout(embedded).transpose(1, 2)
        length = mask.shape[1]  # filters of even width give one output too many
        outputs = [convolution(channels)[:, :, :length] for convolution in self.convolutions]
        tokens = torch.cat(outputs, dim=1).relu().transpose(1, 2)
        return tokens, masked_max(tokens, mask)
