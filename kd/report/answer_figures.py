"""Figures of the outputs: agreement with the teacher, and reliability of the probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kd.report.arms import Arm
from kd.report.calibration import fit_temperature, reliability
from kd.report.contents import agreement_parts, nan_mean
from kd.report.figure import GRID, HEIGHT, INK, MUTED, SERIES, Figure, legend_below, wrapped
from kd.report.runs import Run
from kd.report.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 6
FEWEST_ROWS = 10
"""A bin with fewer rows is not drawn."""


def fidelity(shown: list[Arm]) -> Figure | None:
    """Draw the agreement with the teacher, where it is right and where it is wrong."""
    rows = []
    for arm in shown:
        known = [run.test for run in arm.runs if run.test.teacher_logits is not None]
        if known:
            rows.append((arm.name, *nan_mean(np.array([agreement_parts(split) for split in known]))))
    if not rows:
        return None

    def draw(axes: Axes) -> None:
        for place, (_, _, right, wrong) in enumerate(reversed(rows)):
            axes.plot([100 * wrong, 100 * right], [place, place], color=GRID, linewidth=2, zorder=1)
            labels = ("teacher right", "teacher wrong") if place == 0 else (None, None)
            axes.plot(100 * right, place, "o", color=SERIES[0], label=labels[0])
            axes.plot(100 * wrong, place, "s", color=SERIES[1], label=labels[1])
        axes.set_yticks(range(len(rows)), [wrapped(row[0]) for row in reversed(rows)])
        axes.set(xlim=(0, 102), ylim=(-0.6, len(rows) - 0.4), xlabel="rows with the teacher's label, %")
        axes.grid(axis="y", visible=False)
        legend_below(axes, columns=2)

    caption = (
        "How often the student gives the teacher's label, where that label is right and where it is wrong. The square "
        "lies far to the right for a student that copies its teacher's mistakes."
    )
    lines = sum(wrapped(row[0]).count("\n") + 1.6 for row in rows)
    title = "Where the teacher is right, and where it is wrong"
    columns = ("model", "all", "teacher_right", "teacher_wrong")
    return Figure("fidelity", title, caption, columns, rows, draw, 1.4 + 0.16 * lines)


def reliabilities(study: Study, shown: list[Arm], after: bool) -> Figure | None:
    """Draw accuracy by confidence, all seeds of an arm together, and the teacher for reference."""
    lines: dict[str, np.ndarray] = {}
    for name, run in study.teachers[:1]:
        if run.validation is not None and run.validation.teacher_logits is not None:
            lines[name] = bins_of([run], after, teacher=True)
    for arm in shown[: MOST_LINES - 1]:
        if all(run.validation is not None for run in arm.runs):
            lines[arm.name] = bins_of(arm.runs, after)
    if not lines:
        return None
    rows = [
        (name, place + 1, *map(float, bin)) for name, bins in lines.items() for place, bin in enumerate(bins) if bin[2]
    ]

    def draw(axes: Axes) -> None:
        lowest = 1 / study.runs[0].test.logits.shape[1]
        axes.plot([100 * lowest, 100], [100 * lowest, 100], color=MUTED, linewidth=1, linestyle=":")
        series = iter(SERIES)
        for name, bins in lines.items():
            kept = bins[bins[:, 2] >= FEWEST_ROWS]
            colour = INK if name.startswith("teacher") else next(series)
            axes.plot(100 * kept[:, 0], 100 * kept[:, 1], "o-", color=colour, markersize=3, label=wrapped(name, 34))
        axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(100 * lowest - 1, 101))
        legend_below(axes)

    title = "Reliability after temperature scaling" if after else "Reliability"
    caption = (
        "Accuracy on the test rows by the confidence in the predicted label, in 15 equal bins, all seeds together. "
        "Bins with fewer than 10 rows are not drawn. On the dotted line confidence equals accuracy; below it the model "
        "is over-confident." + (" The temperature was fitted to validation rows." if after else "")
    )
    columns = ("model", "bin", "confidence", "accuracy", "rows")
    height = HEIGHT + 0.18 * sum(wrapped(name, 34).count("\n") + 1 for name in lines)
    name = "reliability-after" if after else "reliability"
    return Figure(name, title, caption, columns, rows, draw, height)


def bins_of(runs: Sequence[Run], after: bool, teacher: bool = False) -> np.ndarray:
    """Return the `reliability` of several runs together."""
    totals = 0
    for run in runs:
        logits = [split.teacher_logits if teacher else split.logits for split in (run.validation, run.test)]
        fitted = fit_temperature(logits[0], run.validation.labels) if after else 1.0
        bins = reliability(logits[1], run.test.labels, fitted)
        totals = totals + bins * np.array([1, 1, 0]) * bins[:, 2:] + bins * np.array([0, 0, 1])
    count = np.maximum(totals[:, 2:], 1)
    return np.concatenate([totals[:, :2] / count, totals[:, 2:]], axis=1)
