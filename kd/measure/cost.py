"""Measure the parameters and the latency of a model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import NamedTuple

import numpy as np
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


class Reader(NamedTuple):
    """A model, and how it reads a text."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int


Times = list[np.ndarray]
"""Milliseconds of each call, an array for each turn."""

LEAST_TURNS, MOST_REPEATS = 7, 200


@torch.inference_mode()
def times_in_turns(
    sides: Sequence[Sequence[Reader]], texts: Sequence[str], turns: int = 60, calls: int = 3, seconds: float = 1.5
) -> list[Times]:
    """Time one text at a time on the CPU, from tokens to logits, without the tokenizer.

    The sides take turns, so that other load on the machine slows all of them alike. In a turn all sides read the same
    texts. A fast side reads them again until its turn is about as long as that of the slowest side: otherwise it would
    be over before another process interrupts it, and look too fast. The first call of a side in a turn is not counted,
    because the processor's caches are full of the other side's weights.

    Args:
        sides: what is compared. The models of a side run one after another.
        texts: used in turn; give real ones, since the time depends on their length.
        turns: largest number of turns.
        calls: texts in a turn.
        seconds: no turn begins later than this, but there are at least `LEAST_TURNS`.

    Returns:
        the times of each side.
    """
    encoded = [[[_encoded(reader, text) for reader in side] for text in texts] for side in sides]
    found: list[Times] = [[] for _ in sides]
    with ExitStack() as stack:
        for reader in chain.from_iterable(sides):
            stack.enter_context(_on_cpu(reader.model))
        first = [_times(side, own[:calls]).sum() for side, own in zip(sides, encoded, strict=True)]  # warms up
        repeats = [min(MOST_REPEATS, max(1, round(max(first) / own))) for own in first]
        start = time.perf_counter()
        for turn in range(turns):
            if turn >= LEAST_TURNS and time.perf_counter() - start > seconds:
                break
            rows = [number % len(texts) for number in range(turn * calls, (turn + 1) * calls)]
            for side, own, often, times in zip(sides, encoded, repeats, found, strict=True):
                times.append(_times(side, [own[row] for row in rows] * often))
    return found


def latency(times: Times) -> dict[str, float]:
    """Return median ``p50_ms`` and 95th percentile ``p95_ms`` of all calls, and the ``threads`` used."""
    p50, p95 = np.quantile(np.concatenate(times), [0.5, 0.95]).tolist()
    return {"p50_ms": p50, "p95_ms": p95, "threads": torch.get_num_threads()}


def speedup(student: Times, teacher: Times) -> dict[str, float]:
    """Return how many times as fast as the teacher the student is.

    Returns:
        ``ratio``: the median over the turns of the teacher's mean time over the student's; ``low`` and ``high``: the
        quartiles of these ratios; ``turns``: their number.

    >>> speedup([np.array([1.0]), np.array([2.0, 2.0]), np.array([1.0])], list(np.array([[4.0], [8.0], [8.0]])))
    {'ratio': 4.0, 'low': 4.0, 'high': 6.0, 'turns': 3}
    """
    ratios = [theirs.mean() / own.mean() for own, theirs in zip(student, teacher, strict=True)]
    low, ratio, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    return {"ratio": ratio, "low": low, "high": high, "turns": len(ratios)}


def _encoded(reader: Reader, text: str) -> dict[str, torch.Tensor]:
    found = reader.tokenizer([text], truncation=True, max_length=reader.max_length, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def _times(side: Sequence[Reader], texts: Sequence[Sequence[dict[str, torch.Tensor]]]) -> np.ndarray:
    """Return the milliseconds of a side for each text, after a call that is not counted."""
    taken = []
    for inputs in [texts[0], *texts]:
        start = time.perf_counter()
        for reader, own in zip(side, inputs, strict=True):
            reader.model(**own)
        taken.append(1000 * (time.perf_counter() - start))
    return np.array(taken[1:])


@contextmanager
def _on_cpu(model: PreTrainedModel) -> Iterator[None]:
    """Put a model on the CPU and into evaluation mode; restore its device and mode at the end."""
    device = model.device
    with evaluating(model):
        model.to("cpu")  # type: ignore[arg-type]  # transformers hides the arguments of torch's `to`
        yield
        model.to(device)  # type: ignore[arg-type]
