"""Measure the parameters and the latency of a model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.measure.inference import evaluating


def parameter_counts(model: PreTrainedModel) -> dict[str, int]:
    """Count all parameters, those outside embeddings (of words and positions), and those that are trained."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    sizes = {id(p): p.numel() for p in model.parameters()}
    return {
        "total": sum(sizes.values()),
        "without_embeddings": sum(size for key, size in sizes.items() if key not in embeddings),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def latency(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, **calls: int
) -> dict[str, float]:
    """Measure the latency of one model; see `latencies`."""
    return latencies([model], tokenizer, texts, max_length, **calls)[0]


@torch.inference_mode()
def latencies(
    models: Sequence[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    warm_up: int = 20,
    timed: int = 200,
) -> list[dict[str, float]]:
    """Time one text at a time on the CPU, from tokens to logits, without the tokenizer.

    The models take turns, so that other load on the machine slows all of them alike.

    Args:
        texts: used in turn; give real ones, since the time depends on their length.
        warm_up: calls before the timed ones.
        timed: calls that are timed.

    Returns:
        for each model median ``p50_ms`` and 95th percentile ``p95_ms`` in milliseconds, with the ``threads`` used.
    """
    encoded = [
        tokenizer([texts[i % len(texts)]], truncation=True, max_length=max_length, return_tensors="pt")
        for i in range(min(timed, len(texts)))
    ]
    devices = [model.device for model in models]
    times: list[list[float]] = [[] for _ in models]
    with ExitStack() as stack:
        for model in models:
            model.to("cpu")  # type: ignore[arg-type]  # transformers hides the arguments of torch's `to`
            stack.enter_context(evaluating(model))
        for call in range(warm_up + timed):
            inputs = encoded[call % len(encoded)]
            for model, taken in zip(models, times, strict=True):
                start = time.perf_counter()
                model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
                taken.append(1000 * (time.perf_counter() - start))
    for model, device in zip(models, devices, strict=True):
        model.to(device)  # type: ignore[arg-type]
    return [
        {
            "p50_ms": statistics.median(taken[warm_up:]),
            "p95_ms": statistics.quantiles(taken[warm_up:], n=20)[-1],
            "threads": torch.get_num_threads(),
        }
        for taken in times
    ]
