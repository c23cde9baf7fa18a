"""Time forms of classifiers in turns, so that other load on the machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kd.benchmark.forms import Form
from kd.export.classifier import padded
from kd.measure.cost import in_turns

WARM_UP = 3
"""Calls of each form before the first turn."""


def latencies(forms: Sequence[Form], texts: Sequence[str], turns: int, seconds: float) -> list[np.ndarray]:
    """Time one text at a time, one in each turn; see `kd.measure.cost.in_turns`.

    Args:
        forms: what is compared.
        texts: used in turn.
        turns, seconds: see there.

    Returns:
        for each form ``[turns, 2]``: the mean milliseconds of the tokenizer, and of the model, in each turn.
    """
    found = in_turns([_timed(form, texts) for form in forms], turns, 1, seconds, WARM_UP)
    return [np.stack([times.mean(axis=0) for times in own]) for own in found]


def _timed(form: Form, texts: Sequence[str]) -> Callable[[int], np.ndarray]:
    """Return what gives the milliseconds of the tokenizer and of the model for the text with a number."""

    def once(row: int) -> np.ndarray:
        start = time.perf_counter()
        ids, mask = padded(form.tokenise([texts[row % len(texts)]]), form.padding)
        between = time.perf_counter()
        form.run(ids, mask)
        return 1000 * np.array([between - start, time.perf_counter() - between])

    return once


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
