"""TextCNN: convolution filters of several widths over the words, and the maximum of each over the text."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import MinLen
from torch import Tensor, nn

from kd.models.base import Student, StudentConfig, masked_max
from kd.options.declared import Width


class TextCNNConfig(StudentConfig):
    """The options of a `TextCNN`.

    Args:
        filter_sizes: widths of the filters, in tokens.
        num_filters: number of filters of each width.
    """

    model_type = "kd-textcnn"

    filter_sizes: Annotated[tuple[Width, ...], MinLen(1)] = (3, 4, 5)
    num_filters: Width = 100

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.filter_sizes = list(self.filter_sizes)  # type: ignore[assignment]  # as a saved configuration is read


class TextCNN(Student):
    """Convolutions -> ReLU -> maximum over time -> head.

    A filter has one output for each token, with zero vectors beyond both ends of the text, so a text may be shorter
    than the widest filter. The states are the outputs [B, L, sizes * filters] and their maximum
    [B, 1, sizes * filters].

    Source: Kim, Convolutional Neural Networks for Sentence Classification, 2014, https://aclanthology.org/D14-1181
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
        channels = self.dropout(embedded).transpose(1, 2)
        length = mask.shape[1]  # a filter of even width has one output too many
        outputs = [convolution(channels)[:, :, :length] for convolution in self.convolutions]
        tokens = torch.cat(outputs, dim=1).relu().transpose(1, 2)
        return tokens, masked_max(tokens, mask)
