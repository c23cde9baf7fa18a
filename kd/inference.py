"""Logits of a model for every row of a split, and what a model costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.contract import Batch
from kd.features import Feature, read


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
    """The logits of all rows ``[rows, C]``, row i at i whatever the order of the batches."""
    table = None
    for index, logits, _ in outputs_by_row(model, batches):
        if table is None:
            table = np.full((rows, logits.shape[1]), np.nan, dtype=np.float32)
        table[index] = logits
    return table


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; the mode before is restored."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def parameter_counts(model: PreTrainedModel) -> dict[str, int]:
    """Parameters in all, without the word table (and positions), and those that train."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    sizes = {id(p): p.numel() for p in model.parameters()}
    return {
        "total": sum(sizes.values()),
        "without_embeddings": sum(size for key, size in sizes.items() if key not in embeddings),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def latency(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    warm_up: int = 20,
    timed: int = 200,
) -> dict[str, float]:
    """`latencies` of one model."""
    return latencies([model], tokenizer, texts, max_length, warm_up, timed)[0]


@torch.inference_mode()
def latencies(
    models: Sequence[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    warm_up: int = 20,
    timed: int = 200,
) -> list[dict[str, float]]:
    """Time of one text at a time on the CPU, from tokens to logits, tokenizer apart; the models take turns.

    Args:
        texts: taken in turn; give real ones, since the time depends on their length.
        warm_up: calls before the clock starts.
        timed: calls that are timed.

    Returns:
        for each model median ``p50_ms`` and 95th percentile ``p95_ms`` in milliseconds, with the ``threads`` used.
    """
    encoded = [
        tokenizer([texts[i % len(texts)]], truncation=True, max_length=max_length, return_tensors="pt")
        for i in range(min(timed, len(texts)))
    ]
    devices, times = [model.device for model in models], [[] for _ in models]
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluating(model.to("cpu")))
        for call in range(warm_up + timed):
            inputs = encoded[call % len(encoded)]
            for model, taken in zip(models, times, strict=True):
                start = time.perf_counter()
                model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
                taken.append(1000 * (time.perf_counter() - start))
    for model, device in zip(models, devices, strict=True):
        model.to(device)
    return [
        {
            "p50_ms": statistics.median(taken[warm_up:]),
            "p95_ms": statistics.quantiles(taken[warm_up:], n=20)[-1],
            "threads": torch.get_num_threads(),
        }
        for taken in times
    ]
