"""A figure as data, what the drawing of all figures shares, and their files: PNG, SVG, and SVG for the page."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kd.report.tables import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1f2328", "#59636e", "#d1d9e0"
SERIES = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#0a7ea4", "#6e7781")
"""In the page, each colour becomes a variable with another value in dark mode."""
WIDTH, HEIGHT = 4.8, 3.3
"""In inches; at this width the text is readable on a phone."""
LEGEND = 34
"""Letters in a line of a legend."""
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)
}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "savefig.bbox": "tight",
    "savefig.facecolor": "white",
    "savefig.pad_inches": 0.06,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
}


@dataclass(frozen=True)
class Figure:
    """One figure.

    Args:
        name: name of its files.
        title, caption: its content and how to read it; the caption is also the text for screen readers.
        columns, rows: its data.
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
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 100 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend_below(axes: Axes, columns: int = 1) -> None:
    below = -0.5 / (0.77 * axes.figure.figure.get_figheight())  # half an inch, in heights of the axes
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, below), frameon=False, ncols=columns, handlelength=1.6)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write a name beside each row of the axes, from below."""
    axes.set_yticks(range(len(names)), [wrapped(name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", visible=False)


def wrapped(name: str, width: int = 24) -> str:
    return "\n".join(textwrap.wrap(name, width, break_long_words=False, break_on_hyphens=False))


def height_of_rows(names: Iterable[str]) -> float:
    """Return the inches that `name_rows` needs for these names."""
    return 0.16 * sum(wrapped(name).count("\n") + 1.6 for name in names)


def height_of_legend(names: Iterable[str]) -> float:
    """Return the inches that a legend below the axes needs, one name under the other."""
    return 0.18 * sum(wrapped(name, LEGEND).count("\n") + 1 for name in names)


def drawn(figure: Figure) -> tuple[bytes, str]:
    """Draw a figure as PNG and as SVG on white; the same data give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    png, svg = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": figure.name}):
        canvas = Canvas(figsize=(WIDTH, figure.height))
        renderer = FigureCanvasAgg(canvas).get_renderer()
        figure.draw(canvas.subplots())
        # The same as bbox_inches="tight", which would draw everything once more for each format to find the box.
        box = canvas.get_tightbbox(renderer).padded(matplotlib.rcParams["savefig.pad_inches"])
        canvas.savefig(png, format="png", dpi=160, bbox_inches=box, metadata={"Software": None})
        canvas.savefig(svg, format="svg", bbox_inches=box, metadata={"Date": None})
    return png.getvalue(), svg.getvalue().decode()


def inline(svg: str, name: str, caption: str) -> str:
    """Change an SVG for the page: colours become variables, the background goes, ids get the figure's name."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="patch_1">.*?</g>\s*', "", svg, count=1, flags=re.DOTALL)  # the white background
    svg = re.sub(r'((?<=[ :])id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), svg)
    svg = re.sub(r"font-family: [^;\"]*(; )?", "", svg)  # the page has its own
    svg = re.sub(r"\n\s*", "\n", svg)
    label = caption.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
