"""BiLSTM: an LSTM over the words in both directions, pooled over the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

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
    """Bidirectional LSTM over the tokens -> mean and maximum over the tokens, side by side -> head.

    The states are the top layer [B, L, 2H] and the pooled text [B, 1, 4H]. Padding may stand anywhere in a row.

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
        """Return the top layer [B, L, 2H], zero outside the mask, and the pooled text [B, 1, 4H]."""
        run = run_as_node if torch.onnx.is_in_onnx_export() else run_packed if embedded.is_cuda else run_padded
        # They expect the padding on the right. ONNX has no stable sort, so all numbers that are sorted differ.
        places = torch.arange(mask.shape[1], device=mask.device)
        tokens_first = torch.where(mask, places, places + mask.shape[1]).argsort(dim=1)
        states = run(self.lstm, take(self.dropout(embedded), tokens_first), mask.sum(dim=1))
        own_place = (mask.cumsum(dim=1) - 1).clamp(min=0)
        tokens = take(states, own_place) * mask.unsqueeze(-1)
        return tokens, torch.cat([masked_mean(tokens, mask), masked_max(tokens, mask)], dim=-1)


def run_packed(lstm: nn.LSTM, rows: Tensor, lengths: Tensor) -> Tensor:
    """Return the top layer [B, L, 2H] of a bidirectional LSTM; cuDNN has a fast kernel for packed rows.

    Args:
        lstm: with ``batch_first=True``.
        rows: [B, L, E], padded on the right.
        lengths: [B], at least 1.
    """
    packed = pack_padded_sequence(rows, lengths.cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=rows.shape[1])[0]


@torch.compiler.disable  # torch.compile would unroll the steps, and compile for minutes for each length
def run_padded(lstm: nn.LSTM, rows: Tensor, lengths: Tensor) -> Tensor:
    """Return what `run_packed` returns, with the faster CPU kernel; only the values in the padding differ.

    On the CPU torch gives packed rows to a slow kernel, and padded rows to that of oneDNN. There the backward direction
    would begin in the padding. So each direction is run alone, the backward one over rows that are reversed within
    their own length.
    """
    steps, last = torch.arange(rows.shape[1], device=rows.device), lengths.unsqueeze(1) - 1
    mirrored = torch.where(steps <= last, last - steps, steps)
    zeros = rows.new_zeros(1, rows.shape[0], lstm.hidden_size)

    def run(inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
        train = torch.is_grad_enabled()  # oneDNN keeps what its gradient needs only then, also in evaluation mode
        return torch.lstm(inputs, (zeros, zeros), tuple(weights), True, 1, 0.0, train, False, True)[0]

    for layer in range(lstm.num_layers):
        if layer:
            rows = F.dropout(rows, lstm.dropout, lstm.training)
        ahead, back = lstm.all_weights[2 * layer : 2 * layer + 2]
        rows = torch.cat([run(rows, ahead), take(run(take(rows, mirrored), back), mirrored)], dim=-1)
    return rows


def run_as_node(lstm: nn.LSTM, rows: Tensor, lengths: Tensor) -> Tensor:
    """Return what `run_packed` returns, as one LSTM node of ONNX a layer, when a model is exported to ONNX.

    Source: https://onnx.ai/onnx/operators/onnx__LSTM.html
    """
    (batch, length), size = rows.shape[:2], lstm.hidden_size
    states = rows.transpose(0, 1)
    for layer in range(lstm.num_layers):
        both = zip(*lstm.all_weights[2 * layer : 2 * layer + 2], strict=True)
        inputs, hidden, *biases = (torch.stack([_gates_of_onnx(side) for side in pair]) for pair in both)
        states = torch.onnx.ops.symbolic(
            "LSTM",
            (states, inputs, hidden, torch.cat(biases, dim=1), lengths.int()),
            {"hidden_size": size, "direction": "bidirectional"},
            dtype=rows.dtype,
            shape=(length, 2, batch, size),
            version=14,
        )
        states = states.transpose(1, 2).flatten(2)
    return states.transpose(0, 1)


def _gates_of_onnx(weights: Tensor) -> Tensor:
    """Return the rows of torch's gates (input, forget, cell, output) in ONNX's order (input, output, forget, cell)."""
    inputs, forget, cell, output = weights.unflatten(0, (4, -1))
    return torch.cat([inputs, output, forget, cell])


def take(rows: Tensor, places: Tensor) -> Tensor:
    """Return the vectors at these places [B, L] of the rows [B, L, d]."""
    return rows.gather(1, places.unsqueeze(-1).expand(-1, -1, rows.shape[2]))
