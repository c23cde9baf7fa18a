"""Time forms of classifiers in turns, so that other load on the machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from kd.benchmark.forms import Form
from kd.export.classifier import padded

WARM_UP = 3
"""Calls of each form that are not counted."""
LEAST_TURNS = 7


def latencies(forms: Sequence[Form], texts: Sequence[str], turns: int, seconds: float) -> list[np.ndarray]:
    """Time one text at a time.

    In a turn, each form answers the same text several times, the fast ones more often, so that all turns are about as
    long as the slowest form's; see `kd.measure.cost.times_in_turns`. The first answer in a turn is not counted.

    Args:
        forms: what is compared.
        texts: used in turn.
        turns: largest number of turns.
        seconds: no turn begins later than this, but there are at least `LEAST_TURNS`.

    Returns:
        for each form ``[turns, 2]``: the mean milliseconds of the tokenizer, and of the model, in each turn.
    """
    for form in forms:
        for text in texts[:WARM_UP]:
            form.answer([text])
    once = [_timed(form, texts[0], 1).sum() for form in forms]
    repeats = [int(np.clip(round(max(once) / own), 1, 50)) for own in once]
    found: list[list[np.ndarray]] = [[] for _ in forms]
    start = time.perf_counter()
    for turn in range(turns):
        if turn >= LEAST_TURNS and time.perf_counter() - start > seconds:
            break
        for form, often, times in zip(forms, repeats, found, strict=True):
            times.append(_timed(form, texts[turn % len(texts)], often))
    return [np.array(times) for times in found]


def _timed(form: Form, text: str, often: int) -> np.ndarray:
    """Return the mean milliseconds of the tokenizer and of the model, after one answer that is not counted."""
    spent = np.zeros((often + 1, 2))
    for call in spent:
        start = time.perf_counter()
        ids, mask = padded(form.tokenise([text]), form.padding)
        between = time.perf_counter()
        form.run(ids, mask)
        call[:] = between - start, time.perf_counter() - between
    return 1000 * spent[1:].mean(axis=0)


def throughputs(forms: Sequence[Form], texts: Sequence[str], batch: int, turns: int = 3) -> list[float]:
    """Return the rows a second of each form, the median over turns, with the tokenizer and the texts' own lengths."""
    rows = [texts[place % len(texts)] for place in range(batch)]
    found: list[list[float]] = [[] for _ in forms]
    for turn in range(turns + 1):
        for form, rates in zip(forms, found, strict=True):
            start = time.perf_counter()
            form.answer(rows)
            if turn:  # the first is a warm-up
                rates.append(batch / (time.perf_counter() - start))
    return [float(np.median(rates)) for rates in found]


def summary(times: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Summarise the latency of a form.

    Args:
        times: ``[turns, 2]`` of the form, as `latencies` returns.
        reference: those of what it is compared with.

    Returns:
        ``p50_ms``, ``p95_ms`` and ``p99_ms`` with the tokenizer, ``model_ms`` (median without it), and ``ratio`` with
        ``low`` and ``high``: how many times as fast as the reference, the median over the turns and a 95 % interval of
        this median by the bootstrap.
    """
    whole, theirs = times.sum(axis=1), reference.sum(axis=1)
    ratios = theirs / whole
    generator = np.random.default_rng(0)
    medians = np.median(ratios[generator.integers(len(ratios), size=(1000, len(ratios)))], axis=1)
    p50, p95, p99 = np.quantile(whole, [0.5, 0.95, 0.99]).tolist()
    low, high = np.quantile(medians, [0.025, 0.975]).tolist()
    return {
        **{"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "model_ms": float(np.median(times[:, 1]))},
        **{"ratio": float(np.median(ratios)), "low": low, "high": high, "turns": len(times)},
    }
