"""Measure the parameters and the latency of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any, NamedTuple

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


def in_turns(
    timed: Sequence[Callable[[int], Any]], turns: int, calls: int, seconds: float, warm_up: int = 1
) -> list[Times]:
    """Time several things in turns, so that other load on the machine slows all of them alike.

    In a turn all do the same work. A fast one repeats it until its turn is about as long as that of the slowest:
    otherwise it would be over before another process interrupts it, and look too fast. The first call in a turn is not
    counted, because the processor's caches are full of the others' weights.

    Args:
        timed: each works once, on the text with this number, and returns its milliseconds: a number, or several parts.
        turns: largest number of turns.
        calls: texts in a turn.
        seconds: no turn begins later than this, but there are at least `LEAST_TURNS`.
        warm_up: calls before the first turn.

    Returns:
        for each, the times of its calls in each turn.
    """
    first = list[float]()
    for once in timed:
        for row in range(warm_up):
            once(row)
        first.append(sum(float(np.sum(once(row))) for row in range(calls)))
    repeats = [int(np.clip(round(max(first) / own), 1, MOST_REPEATS)) for own in first]
    found: list[Times] = [[] for _ in timed]
    start = time.perf_counter()
    for turn in range(turns):
        if turn >= LEAST_TURNS and time.perf_counter() - start > seconds:
            break
        rows = range(turn * calls, (turn + 1) * calls)
        for once, often, times in zip(timed, repeats, found, strict=True):
            once(rows[0])
            times.append(np.array([once(row) for _ in range(often) for row in rows]))
    return found


@torch.inference_mode()
def times_in_turns(
    sides: Sequence[Sequence[Reader]], texts: Sequence[str], turns: int = 60, calls: int = 3, seconds: float = 1.5
) -> list[Times]:
    """Time one text at a time on the CPU, from tokens to logits, without the tokenizer; see `in_turns`.

    Args:
        sides: what is compared. The models of a side run one after another.
        texts: used in turn; give real ones, since the time depends on their length.
        turns, calls, seconds: see `in_turns`.

    Returns:
        the times of each side.
    """
    with ExitStack() as stack:
        for reader in chain.from_iterable(sides):
            stack.enter_context(_on_cpu(reader.model))
        return in_turns([_timed(side, texts) for side in sides], turns, calls, seconds)


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


def _timed(side: Sequence[Reader], texts: Sequence[str]) -> Callable[[int], float]:
    """Return what times a side on the text with a number."""
    encoded = [[_encoded(reader, text) for reader in side] for text in texts]

    def once(row: int) -> float:
        start = time.perf_counter()
        for reader, own in zip(side, encoded[row % len(encoded)], strict=True):
            reader.model(**own)
        return 1000 * (time.perf_counter() - start)

    return once


@contextmanager
def _on_cpu(model: PreTrainedModel) -> Iterator[None]:
    """Put a model on the CPU and into evaluation mode; restore its device and mode at the end."""
    device = model.device
    with evaluating(model):
        model.to("cpu")  # type: ignore[arg-type]  # transformers hides the arguments of torch's `to`
        yield
        model.to(device)  # type: ignore[arg-type]
