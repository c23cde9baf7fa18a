"""Run a model over a split, and collect its logits and features."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from kd.contract import Batch
from kd.features.feature import Feature, read


@torch.inference_mode()
def outputs_by_row(
    model: PreTrainedModel, batches: Iterable[Batch], features: Collection[Feature] = ()
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[Feature, np.ndarray]]]:
    """Run a model over batches in evaluation mode.

    Yields:
        row numbers ``[B]``, float32 logits ``[B, C]`` and the features of each batch, in the order of the batches.
    """
    with evaluating(model):
        for batch in batches:
            inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
            logits, found = read(model, inputs, features)
            arrays = {feature: value.float().cpu().numpy() for feature, value in found.items()}
            yield batch["index"].numpy(), logits.float().cpu().numpy(), arrays


def all_logits(model: PreTrainedModel, batches: Iterable[Batch], rows: int) -> np.ndarray:
    """Return the logits of all rows ``[rows, C]``, row i at i whatever the order of the batches."""
    found = [(index, logits) for index, logits, _ in outputs_by_row(model, batches)]
    table = np.full((rows, found[0][1].shape[1]), np.nan, dtype=np.float32)
    for index, logits in found:
        table[index] = logits
    return table


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and restore its mode at the end."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch use this number of threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
