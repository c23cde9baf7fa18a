"""A figure as data, and what the drawing of all figures shares."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kd.report.tables import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1f2328", "#59636e", "#d1d9e0"
SERIES = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#0a7ea4", "#6e7781")
"""In the page, each colour becomes a variable with another value in dark mode: see `kd.report.drawing`."""
WIDTH, HEIGHT = 4.8, 3.3
"""In inches; at this width the text is readable on a phone."""


@dataclass(frozen=True)
class Figure:
    """One figure.

    Args:
        name: name of its files.
        title, caption: its content and how to read it; the caption is also the text for screen readers.
        columns, rows: its data.
        draw: draws it onto axes.
        height: in inches.
    """

    name: str
    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    draw: Callable[[Axes], None]
    height: float = HEIGHT

    def csv(self) -> str:
        return csv_text([self.columns, *self.rows])


def plain_log_ticks(axes: Axes) -> None:
    """Put ticks at 1, 2 and 5 times a power of ten, or at the powers alone where the range is wide."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    wide = high / low > 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend_below(axes: Axes, columns: int = 1) -> None:
    """Put the legend below the axes."""
    below = -0.5 / (0.77 * axes.figure.get_figheight())  # half an inch, in heights of the axes
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, below), frameon=False, ncols=columns, handlelength=1.6)


def wrapped(name: str, width: int = 24) -> str:
    """Break a name into several lines."""
    return "\n".join(textwrap.wrap(name, width, break_long_words=False, break_on_hyphens=False))
