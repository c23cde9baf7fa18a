"""BiLSTM: an LSTM over the words in both directions, pooled over the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from kd.errors import KDError
from kd.models.base import Student, StudentConfig, masked_max, masked_mean
from kd.options.declared import Depth, Width


class BiLSTMConfig(StudentConfig):
    """The options of a `BiLSTM`.

    Args:
        hidden_size: width of one direction.
        num_layers: number of stacked LSTM layers.
    """

    model_type = "kd-bilstm"

    hidden_size: Width = 128
    num_layers: Depth = 1


class BiLSTM(Student):
    """Packed bidirectional LSTM -> mean and maximum over the tokens, side by side -> head.

    The states are the top layer [B, L, 2H] and the pooled text [B, 1, 4H]. Padding must be on the right.

    Source: Tang et al., Distilling Task-Specific Knowledge from BERT into Simple Neural Networks, 2019,
    https://arxiv.org/abs/1903.12136 (the student there reads the last states in place of a pooled text)
    """

    config_class = BiLSTMConfig

    def __init__(self, config: BiLSTMConfig):
        super().__init__(config, sentence_size=4 * config.hidden_size)
        self.lstm = nn.LSTM(
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
        )
        self.post_init()

    def encode(self, embedded: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return the top layer [B, L, 2H] and the pooled text [B, 1, 4H]; refuse padding before a token."""
        lengths = mask.sum(dim=1).cpu()
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            raise KDError(
                "student 'kd-bilstm' expects rows padded on the right, found padding before or between tokens; "
                "set the tokenizer's padding_side to 'right'"
            )
        packed = pack_padded_sequence(self.dropout(embedded), lengths, batch_first=True, enforce_sorted=False)
        tokens, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=mask.shape[1])
        return tokens, torch.cat([masked_mean(tokens, mask), masked_max(tokens, mask)], dim=-1)
