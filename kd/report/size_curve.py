"""The figure of the size curve: the metric on test by the number of texts in the transfer set."""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle, product
from typing import TYPE_CHECKING

from kd.options.methods import BAG
from kd.report import drawing
from kd.report.arms import Arm, key_of
from kd.report.drawing import HEIGHT, INK, LEGEND, MUTED, SERIES, Figure, legend_below, wrapped
from kd.report.settings import of_transfer_set, target_of_student
from kd.report.study import Study
from kd.report.words import METRICS, capital

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def lines(study: Study) -> dict[str, list[tuple[int, Arm]]]:
    """Return the arms that differ in nothing but the size of a transfer set, by number of texts.

    The arm without a transfer set begins the line of each kind of set. Only lines of several sizes are returned.
    """
    groups: dict[object, dict[str, list[tuple[int, Arm]]]] = defaultdict(lambda: defaultdict(list))
    for arm in study.arms:
        if arm.method != "supervised":
            same = key_of(arm.first, lambda key: not of_transfer_set(key))
            kind = str(arm.first.settings.get("transfer", "none"))
            groups[arm.method, same][kind].append((arm.first.transfer_texts, arm))
    found = {}
    for kinds in groups.values():
        without = kinds.pop("none", [])
        for points in kinds.values() or [without]:
            line = sorted([*(without if points is not without else []), *points], key=lambda point: point[0])
            if len({size for size, _ in line}) > 1:
                full = line[-1][1].name
                short = " ".join(word for word in full.split() if not word.startswith(("transfer_rows=", "rows=")))
                found[full if short in found else short] = line
    return found


def size_curve(study: Study) -> Figure | None:
    """Draw the metric by the size of the transfer set, with the teacher and the best bag of n-grams as lines."""
    curves = lines(study)
    if not curves:
        return None
    rows = [
        (name, size, arm.score, float(arm.scores.min()), float(arm.scores.max()), len(arm.runs))
        for name, points in curves.items()
        for size, arm in points
    ]
    bags = [arm for arm in study.arms if target_of_student(arm.first.settings) == BAG and arm.method == "supervised"]
    levels = {arm.name: arm.score for arm in (*study.teachers, *bags)}
    rows += [(name, 0, score, score, score, 1) for name, score in levels.items()]
    smallest = min(size for _, size, *_ in rows if size)

    def draw(axes: Axes) -> None:
        looks = cycle(product(("o-", "s--", "^:"), SERIES))  # where the colours end, another line begins
        for (name, points), (look, colour) in zip(curves.items(), looks, strict=False):
            sizes = [size for size, _ in points]
            for place, (_, arm) in zip(sizes, points, strict=True):
                axes.plot([place, place], [100 * arm.scores.min(), 100 * arm.scores.max()], color=colour, linewidth=1)
            means = [100 * arm.score for _, arm in points]
            axes.plot(sizes, means, look, color=colour, markersize=4, label=wrapped(name, LEGEND))
        for name, score in levels.items():
            colour, style = (INK, "--") if name.startswith("teacher") else (MUTED, ":")
            axes.axhline(100 * score, color=colour, linestyle=style, linewidth=1.2, label=wrapped(name, LEGEND))
        axes.set_xscale("symlog", linthresh=smallest, linscale=0.5)
        ticks = sorted({size for _, size, *_ in rows})
        axes.set_xticks(ticks, [f"{size / 1000:.3g}k" if size >= 1000 else str(size) for size in ticks])
        axes.minorticks_off()
        axes.set(
            xlabel="texts in the transfer set", ylabel=f"test {METRICS[study.metric]}, %", xlim=(-0.2 * smallest, None)
        )
        legend_below(axes)

    caption = (
        f"{capital(METRICS[study.metric])} on the test rows by the number of texts that the teacher labels beside the "
        "training rows: mean over seeds, and a bar from the lowest to the highest seed. Lines across: the teacher and "
        "the bag of n-grams on the training rows alone."
    )
    columns = ("model", "transfer_texts", "mean", "lowest", "highest", "seeds")
    height = HEIGHT + drawing.height_of_legend([*curves, *levels])
    return Figure("size-curve", "Size of the transfer set", caption, columns, rows, draw, height)
