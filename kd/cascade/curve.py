"""What a cascade does at each threshold: who answers, agreement, accuracy, time; as a table and a drawing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from kd.cascade.threshold import NOBODY, Outcomes, thresholds
from kd.classifier import Classifier
from kd.contract import IGNORED_LABEL
from kd.measure.cost import in_turns, latency
from kd.report.drawing import GRID, INK, MUTED, SERIES, Figure, legend_below

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""The shares of texts answered by students at which the table has a row."""
SECONDS = 10.0
"""Time for the measurement of the milliseconds."""


def milliseconds(classifiers: Sequence[Classifier], texts: Sequence[str]) -> list[float]:
    """Return the median time of each classifier for one text at a time, with its tokenizer. They take turns."""

    def timed(classifier: Classifier) -> Callable[[int], float]:
        def once(row: int) -> float:
            start = time.perf_counter()
            classifier.logits([texts[row % len(texts)]])
            return 1000 * (time.perf_counter() - start)

        return once

    return [latency(times)["p50_ms"] for times in in_turns(list(map(timed, classifiers)), len(texts), 1, SECONDS)]


def figures(outcomes: Outcomes, threshold: float, ms: Sequence[float]) -> dict[str, Any]:
    """Return the content of `kd.storage.cascade_record.Rows` at a threshold.

    Args:
        ms: milliseconds of each student and of the teacher. A text costs those of all that read it.
    """
    stage, rows = outcomes.answered_by(threshold), len(outcomes.labels)
    known = outcomes.labels != IGNORED_LABEL
    right = [
        float((answers == outcomes.labels)[known].mean()) if known.any() else None
        for answers in (outcomes.answered(threshold), outcomes.teacher)
    ]
    return {
        "rows": rows,
        "answered": np.bincount(stage, minlength=len(ms)).tolist(),
        "differing": outcomes.differing(threshold),
        "accuracy": right[0],
        "teacher_accuracy": right[1],
        "milliseconds": float(np.cumsum(ms if threshold < NOBODY else [0.0] * (len(ms) - 1) + [ms[-1]])[stage].mean()),
    }


def table(outcomes: Outcomes, chosen: float, ms: Sequence[float], stages: Sequence[str], title: str) -> Table:
    """Return rows at a few shares of the students, and at the chosen threshold."""
    made = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    heads = (*(f"{name}\n%" for name in stages), "agree\n%", "accuracy\n%", "ms a\ntext", "of\nteacher's")
    for head in ("threshold", *heads, "h / 10⁶\ntexts", ""):
        made.add_column(head, justify="right")
    every = [NOBODY, *thresholds(outcomes.classes)]
    shares = np.array([(outcomes.answered_by(one) < len(stages) - 1).mean() for one in every])
    wanted = {every[int(np.abs(shares - share).argmin())] for share in SHARES}
    for threshold in sorted({*wanted, chosen}, reverse=True):
        found = figures(outcomes, threshold, ms)
        rows, spent = found["rows"], found["milliseconds"]
        made.add_row(
            "–" if threshold == NOBODY else f"{threshold:.4f}",
            *(f"{100 * count / rows:.1f}" for count in found["answered"]),
            f"{100 * (1 - found['differing'] / rows):.1f}",
            "" if found["accuracy"] is None else f"{100 * found['accuracy']:.1f}",
            f"{spent:.2f}",
            f"{spent / ms[-1]:.2f}",
            f"{spent / 3.6:.2f}",  # a million times milliseconds, in hours
            "chosen" if threshold == chosen else "",
        )
    return made


def figure(outcomes: Outcomes, chosen: float, ms: Sequence[float], target: float | None, on: str) -> Figure:
    """Return the drawing of agreement, accuracy and time over the share that the students answer.

    Args:
        target: of the agreement; None where the target is about something else.
        on: which rows these are, in words.
    """
    every = [figures(outcomes, threshold, ms) for threshold in thresholds(outcomes.classes)]
    at = figures(outcomes, chosen, ms)
    lines = {
        "agreement with the teacher": lambda one: 100 * (1 - one["differing"] / one["rows"]),
        "accuracy": lambda one: math.nan if one["accuracy"] is None else 100 * one["accuracy"],
        "time, share of the teacher's": lambda one: 100 * one["milliseconds"] / ms[-1],
    }

    def share(one: dict[str, Any]) -> float:
        return 100 * (1 - one["answered"][-1] / one["rows"])

    def draw(axes: Any) -> None:
        for (name, value), colour in zip(lines.items(), SERIES, strict=False):
            axes.plot([share(one) for one in every], [value(one) for one in every], color=colour, label=name)
            axes.plot([share(at)], [value(at)], "o", color=colour)
        if target is not None:
            axes.axhline(100 * target, color=MUTED, linestyle="--", linewidth=1, label=f"target {100 * target:g} %")
        axes.axvline(share(at), color=INK, linewidth=0.8, label="chosen")
        axes.set(xlabel=f"answered by students, % of {on}", ylabel="%", xlim=(-2, 102))
        axes.grid(color=GRID)
        legend_below(axes, columns=2)

    caption = f"Agreement, accuracy and time of the cascade over the share of texts that students answer, on {on}."
    columns = ["share", *lines]
    rows = [[share(one), *(value(one) for value in lines.values())] for one in every]
    return Figure("cascade", "Cascade", caption, columns, rows, draw)
