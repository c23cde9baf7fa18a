"""The figures of one test set: the data of each, and how it is drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pyarrow.csv

from kd.report import drawing
from kd.report.arms import Arm, key_of
from kd.report.calibration import BINS, fit_temperature, reliability
from kd.report.contents import agreement_parts
from kd.report.drawing import GRID, HEIGHT, INK, LEGEND, MUTED, SERIES, Figure, legend_below, name_rows, wrapped
from kd.report.runs import Split
from kd.report.size_curve import size_curve
from kd.report.study import Study
from kd.report.verdicts import best_by_validation
from kd.report.words import METRICS, capital, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES, MOST_ROWS, MOST_MAPS = 6, 16, 6
FEWEST_ROWS = 10
"""A bin with fewer rows is not drawn."""
SMALLEST_SPAN = 0.02
"""The least range of accuracy over the colours of a heat map, so that small differences look small."""


def figures(study: Study) -> list[Figure]:
    """Return all figures for which these runs have data, in the order of the page."""
    shown = representatives(study)
    made = [forest(study), size_curve(study), *heat_maps(study), learning_curves(shown)]
    made += [trade_off(study, *axis) for axis in AXES]
    made += [fidelity(shown), *(reliabilities(study, shown, after) for after in (False, True))]
    return [figure for figure in made if figure]


def representatives(study: Study) -> list[Arm]:
    """Return the best by validation of each method and student, and a baseline: few enough for one figure."""
    groups: dict[tuple[str, str], list[Arm]] = defaultdict(list)
    for arm in study.arms:
        groups[arm.method, arm.first.metrics["student"]].append(arm)
    chosen = [best_by_validation(group) or group[0] for group in groups.values()]
    if study.best_taught and study.best_taught.name in study.baseline_of:
        chosen.append(study.baseline_of[study.best_taught.name])
    unique = {arm.name: arm for arm in chosen}.values()
    return sorted(unique, key=lambda arm: -(arm.validation or 0.0))[:MOST_LINES]


def forest(study: Study) -> Figure | None:
    """Draw the differences from the matched baselines with their intervals."""
    family = study.over_baselines
    if not family:
        return None
    ranked = sorted(family, key=lambda one: one.difference)[-MOST_ROWS:]
    arms = [one.pair.arm.name for one in ranked]
    full = [f"{one.pair.arm.name} − {one.pair.other.name}" for one in ranked]
    names = [pair if arms.count(arm) > 1 else arm for pair, arm in zip(full, arms, strict=True)]
    rows = [
        (pair, one.difference, *one.interval, one.adjusted, one.verdict) for pair, one in zip(full, ranked, strict=True)
    ]

    def draw(axes: Axes) -> None:
        colours = {"better": SERIES[2], "worse": SERIES[1], "not decided": MUTED}
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, one in enumerate(ranked):
            colour, bounds = colours[one.verdict], [100 * bound for bound in one.interval]
            axes.plot(bounds, [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
            filled = colour if one.decided else "none"
            axes.plot(100 * one.difference, place, "o", color=colour, markerfacecolor=filled, markersize=5)
        name_rows(axes, names)
        reach = 100 * max(0.05, 4 * max(abs(one.difference) for one in ranked))
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -reach), min(high, reach))
        axes.set_xlabel(f"percentage points of test {METRICS[study.metric]} over the matched baseline")

    left = f" The {len(family) - len(ranked)} lowest are left out here." if len(family) > len(ranked) else ""
    caption = (
        "Difference from the supervised student with the same data, budget and seeds, with the interval at Holm's "
        f"level (it may extend beyond the frame). Filled: decided; hollow: not decided.{left}"
    )
    columns, height = ("comparison", "difference", "low", "high", "p_holm", "verdict"), drawing.height_of_rows(names)
    return Figure("gain", "Points over the matched baseline", caption, columns, rows, draw, 1.0 + height)


def heat_maps(study: Study) -> list[Figure]:
    """Draw validation accuracy over temperature and alpha, one map for all arms that differ in nothing else."""
    groups: dict[object, dict[tuple[float, float], Arm]] = defaultdict(dict)
    for arm in study.arms:
        settings = arm.first.settings
        known = all(isinstance(settings.get(name), int | float) for name in ("temperature", "alpha"))
        if arm.method == "supervised" or arm.validation is None or not known:
            continue
        rest = key_of(arm.first, lambda key: key not in ("temperature", "alpha"))
        groups[arm.method, rest][float(settings["temperature"]), float(settings["alpha"])] = arm
    maps = sorted((cells for cells in groups.values() if len(cells) > 1), key=len, reverse=True)[:MOST_MAPS]
    return [heat_map(number, cells, len(maps)) for number, cells in enumerate(maps, start=1)]


def heat_map(number: int, cells: dict[tuple[float, float], Arm], of: int) -> Figure:
    temperatures, alphas = (sorted({key[axis] for key in cells}) for axis in (0, 1))
    chosen_arm = best_by_validation(list(cells.values()))
    best = next(key for key, arm in cells.items() if arm is chosen_arm)
    rows = [(*key, arm.validation or 0.0, arm.score, len(arm.runs), key == best) for key, arm in sorted(cells.items())]
    lowest, highest = min(row[2] for row in rows), max(row[2] for row in rows)
    tied = {row[:2] for row in rows if np.isclose(row[2], highest, rtol=0, atol=1e-9)} - {best}
    middle, span = (lowest + highest) / 2, max(highest - lowest, SMALLEST_SPAN)

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for temperature, alpha, value, _, _, chosen in rows:
            x, y = temperatures.index(temperature), alphas.index(alpha)
            depth = 0.5 + (value - middle) / span
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=SERIES[0], alpha=0.05 + 0.5 * depth, lw=0))
            if chosen or (temperature, alpha) in tied:
                style = {"linewidth": 1.8} if chosen else {"linewidth": 1.0, "linestyle": "--"}
                axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=INK, **style))
            text = f"{100 * value:.1f}" + (" best" if chosen and len(temperatures) < 6 else "")
            axes.text(x, y, text, ha="center", va="center", weight="bold" if chosen else "normal")
        axes.set_xticks(range(len(temperatures)), [f"{value:g}" for value in temperatures])
        axes.set_yticks(range(len(alphas)), [f"{value:g}" for value in alphas])
        axes.set(xlim=(-0.5, len(temperatures) - 0.5), ylim=(-0.5, len(alphas) - 0.5))
        axes.set(xlabel="temperature", ylabel="alpha (share of the transfer terms)")
        axes.grid(visible=False)

    arm = next(iter(cells.values()))
    name = " ".join(word for word in arm.name.split() if not word.startswith(("temperature=", "alpha=", "seed=")))
    have = f"{plural(len(tied), 'setting')} more (dashed) {'has' if len(tied) == 1 else 'have'} the same accuracy"
    ties = f"; {have}, and the lower negative log-likelihood on validation decides" if tied else ""
    caption = (
        f"{name}: mean validation {METRICS[arm.first.metric]} over seeds, in per cent. The frame marks the best, "
        f"temperature {best[0]:g} and alpha {best[1]:g}{ties}. The colours span at least "
        f"{100 * SMALLEST_SPAN:g} points. No test row is used."
    )
    columns = ("temperature", "alpha", "validation_accuracy", "test_accuracy", "seeds", "best")
    title = "Temperature and alpha" + (f": {name}" if of > 1 else "")
    return Figure(f"heat-map-{number}", title, caption, columns, rows, draw, 1.1 + 0.55 * len(alphas))


def learning_curves(shown: list[Arm]) -> Figure | None:
    """Draw validation accuracy by epoch, with a band from the lowest to the highest seed."""
    curves = {arm.name: curve for arm in shown if len(curve := over_seeds(arm)) > 1}
    if not curves:
        return None
    words = METRICS[shown[0].first.metric]
    rows = [
        (name, int(epoch), mean, low, high, int(n)) for name, c in curves.items() for epoch, mean, low, high, n in c
    ]

    def draw(axes: Axes) -> None:
        for (name, curve), colour in zip(curves.items(), SERIES, strict=False):
            epoch, mean, low, high = curve[:, 0], *(100 * curve[:, column] for column in (1, 2, 3))
            axes.fill_between(epoch, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(epoch, mean, color=colour, marker="o", markersize=2.5, label=wrapped(name, LEGEND))
        axes.locator_params(axis="x", integer=True)
        axes.set(xlabel="epoch", ylabel=f"validation {words}, %")
        legend_below(axes)

    caption = (
        f"{capital(words)} on the validation rows after each epoch: mean over seeds, and a band from the lowest to the "
        "highest seed. Each method and student is shown with its best setting by validation."
    )
    columns = ("model", "epoch", "mean", "lowest", "highest", "seeds")
    height = HEIGHT + drawing.height_of_legend(curves)
    return Figure("curves", "Learning curves", caption, columns, rows, draw, height)


def over_seeds(arm: Arm) -> np.ndarray:
    """Return ``[E, 5]``: epoch, mean, lowest, highest and number of seeds, for the epochs that some seed reached."""
    curves = [
        validation_curve(run.directory.path / "metrics.csv", one.metric) for one in arm.runs for run in one.trainings
    ]
    rows = []
    for epoch in sorted({epoch for curve in curves for epoch in curve}):
        values = [curve[epoch] for curve in curves if epoch in curve]
        rows.append((epoch, np.mean(values), min(values), max(values), len(values)))
    return np.array(rows).reshape(-1, 5)


def validation_curve(path: Path, metric: str = "accuracy") -> dict[int, float]:
    """Return a metric on validation by epoch, counted from 1; empty without a file that can be read."""
    try:
        table = pyarrow.csv.read_csv(path)
        epochs, values = (table[name].to_pylist() for name in ("epoch", f"val/{metric}"))
    except (OSError, KeyError, pyarrow.ArrowException):
        return {}
    return {
        int(epoch) + 1: float(value)
        for epoch, value in zip(epochs, values, strict=True)
        if isinstance(value, float | int) and isinstance(epoch, float | int)
    }


AXES: tuple[tuple[str, str, Callable[[dict], float]], ...] = (
    ("latency", "p50 latency on the CPU, ms a text", lambda cost: cost["latency"]["p50_ms"]),
    ("parameters", "parameters, millions", lambda cost: cost["parameters"]["total"] / 1e6),
    ("bytes", "model file, MB", lambda cost: cost["model_bytes"] / 1e6),
)


def trade_off(study: Study, name: str, label: str, cost: Callable[[dict], float]) -> Figure | None:
    """Draw accuracy against a cost; on the Pareto front, no other model is both cheaper and more accurate."""
    made = [
        (arm.name, arm.method, float(np.mean([cost(run.metrics) for run in arm.runs])), arm.score)
        for arm in (*study.arms, *study.teachers)
        if arm.first.metrics.get("parameters")  # a teacher that is a file has no cost
    ]
    front = pareto([(x, y) for _, _, x, y in made])
    rows = [(*entry, place in front) for place, entry in enumerate(made)]

    def draw(axes: Axes) -> None:
        methods = dict.fromkeys(row[1] for row in rows)
        colours = dict(zip([method for method in methods if method != "teacher"], SERIES, strict=False))
        for method in methods:
            points = [(x, 100 * y) for _, one, x, y, _ in rows if one == method]
            style: dict[str, Any] = {"color": colours.get(method, MUTED), "marker": "o", "s": 26, "alpha": 0.75}
            if method == "teacher":
                style = {"color": INK, "marker": "*", "s": 110}
            axes.scatter(*zip(*points, strict=True), label=method, zorder=3, linewidth=0, **style)
        line = sorted((x, 100 * y) for _, _, x, y, on_front in rows if on_front)
        axes.plot(*zip(*line, strict=True), color=MUTED, linewidth=1, linestyle="--", label="Pareto front", zorder=2)
        axes.set_xscale("log")
        drawing.plain_log_ticks(axes)
        axes.set(xlabel=label, ylabel=f"test {METRICS[study.metric]}, %")
        legend_below(axes, columns=3)

    on_front = [row[0] for row in sorted(rows, key=lambda row: row[2]) if row[4]]
    named = ", ".join(on_front[:4]) + (f" and {len(on_front) - 4} more" if len(on_front) > 4 else "")
    caption = (
        f"Each point is a setting, mean over seeds. On the Pareto front, where no other is both cheaper and more "
        f"accurate: {named}. The front describes these results; settings are chosen by validation."
    )
    columns = ("model", "method", name, "test_accuracy", "on_front")
    title = f"{capital(METRICS[study.metric])} and {name}"
    return Figure(f"accuracy-{name}", title, caption, columns, rows, draw, HEIGHT + 0.3)


def pareto(points: Sequence[tuple[float, float]]) -> set[int]:
    """Return the places of the points (cost, accuracy) that no other point dominates.

    A point dominates another if it is better in one and no worse in the other.

    >>> sorted(pareto([(1, 0.7), (2, 0.9), (3, 0.8), (1, 0.6)]))
    [0, 1]
    """
    cost, right = np.array(points).T
    beaten = (cost <= cost[:, None]) & (right > right[:, None]) | (cost < cost[:, None]) & (right >= right[:, None])
    return set(np.flatnonzero(~beaten.any(axis=1)).tolist())


def fidelity(shown: list[Arm]) -> Figure | None:
    """Draw the agreement with the teacher, where it is right and where it is wrong."""
    known = {arm.name: np.array(parts, dtype=float) for arm in shown if (parts := agreement_parts(arm))}
    if not known:
        return None

    def draw(axes: Axes) -> None:
        for place, (_, right, wrong) in enumerate(reversed(known.values())):
            axes.plot([100 * wrong, 100 * right], [place, place], color=GRID, linewidth=2, zorder=1)
            labels = ("teacher right", "teacher wrong") if place == 0 else (None, None)
            axes.plot(100 * right, place, "o", color=SERIES[0], label=labels[0])
            axes.plot(100 * wrong, place, "s", color=SERIES[1], label=labels[1])
        name_rows(axes, list(reversed(known)))
        axes.set(xlim=(0, 102), xlabel="rows with the teacher's label, %")
        legend_below(axes, columns=2)

    caption = (
        "How often the student gives the teacher's label, where that label is right and where it is wrong. The square "
        "lies far to the right for a student that copies its teacher's mistakes."
    )
    title = "Where the teacher is right, and where it is wrong"
    columns, rows = ("model", "all", "teacher_right", "teacher_wrong"), [(name, *known[name]) for name in known]
    return Figure("fidelity", title, caption, columns, rows, draw, 1.4 + drawing.height_of_rows(known))


def reliabilities(study: Study, shown: list[Arm], after: bool) -> Figure | None:
    """Draw accuracy by confidence, all seeds of an arm together, and the teacher for reference."""
    lines: dict[str, np.ndarray] = {}
    for arm in [*study.teachers[:1], *shown[: MOST_LINES - 1]]:
        known = [(run.validation, run.test) for run in arm.runs if run.validation]
        if len(known) == len(arm.runs):
            lines[arm.name] = bins_of(known, after)
    if not lines:
        return None
    rows = [
        (name, place, *map(float, bin)) for name, bins in lines.items() for place, bin in enumerate(bins, 1) if bin[2]
    ]

    def draw(axes: Axes) -> None:
        lowest = 1 / study.runs[0].test.logits.shape[1]
        axes.plot([100 * lowest, 100], [100 * lowest, 100], color=MUTED, linewidth=1, linestyle=":")
        series = iter(SERIES)
        for name, bins in lines.items():
            kept = bins[bins[:, 2] >= FEWEST_ROWS]
            colour = INK if name.startswith("teacher") else next(series)
            axes.plot(100 * kept[:, 0], 100 * kept[:, 1], "o-", color=colour, markersize=3, label=wrapped(name, LEGEND))
        axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(100 * lowest - 1, 101))
        legend_below(axes)

    title = "Reliability after temperature scaling" if after else "Reliability"
    caption = (
        "Accuracy on the test rows by the confidence in the predicted label, in 15 equal bins, all seeds together. "
        "Bins with fewer than 10 rows are not drawn. On the dotted line confidence equals accuracy; below it the model "
        "is over-confident." + (" The temperature was fitted to validation rows." if after else "")
    )
    columns = ("model", "bin", "confidence", "accuracy", "rows")
    name, height = "reliability-after" if after else "reliability", HEIGHT + drawing.height_of_legend(lines)
    return Figure(name, title, caption, columns, rows, draw, height)


def bins_of(splits: Sequence[tuple[Split, Split]], after: bool) -> np.ndarray:
    """Return the `reliability` of all test splits together; ``after`` each was divided by its fitted temperature."""
    totals = np.zeros((BINS, 3))
    for validation, test in splits:
        fitted = fit_temperature(validation.logits, validation.labels) if after else 1.0
        bins = reliability(test.logits, test.labels, fitted)
        totals += bins * np.where([True, True, False], bins[:, 2:], 1)
    return np.concatenate([totals[:, :2] / np.maximum(totals[:, 2:], 1), totals[:, 2:]], axis=1)
