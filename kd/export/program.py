"""Export a model as a program of ``torch.export``, which torch runs without kd's classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export._patches import register_lstm_while_loop_decomposition
from transformers import PreTrainedModel


class Logits(nn.Module):
    """The logits of a classifier, from ids and mask ``[B, L]`` int64."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def example() -> tuple[Tensor, Tensor]:
    """Return two rows of different length. No size in them is 0 or 1, which an export would keep as constants."""
    ids = torch.ones(2, 5, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    return ids, mask


@torch.inference_mode(False)
def save(model: PreTrainedModel, max_length: int, path: Path) -> None:
    """Write the program of a model for any number of rows and any length up to ``max_length``."""
    shape = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=max_length)}
    with torch.no_grad(), register_lstm_while_loop_decomposition():  # torch would unroll the steps of an LSTM
        program = torch.export.export(Logits(model), example(), dynamic_shapes=(shape, shape))
    torch.export.save(program, path)
