"""Write figures as PNG, as SVG, and as SVG for the page with the colours of the page."""

from __future__ import annotations

import io
import re

from kd.report.figure import GRID, INK, MUTED, SERIES, WIDTH, Figure

VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)
}
STYLE = {
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
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
}


def drawn(figure: Figure) -> tuple[bytes, str]:
    """Draw a figure as PNG and as SVG on white; the same data give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE | {"svg.hashsalt": figure.name}):
        canvas = Canvas(figsize=(WIDTH, figure.height))
        FigureCanvasAgg(canvas)
        figure.draw(canvas.subplots())
        images = []
        for kind, options in (
            ("png", {"dpi": 160, "metadata": {"Software": None}}),
            ("svg", {"metadata": {"Date": None}}),
        ):
            buffer = io.BytesIO()
            canvas.savefig(buffer, format=kind, bbox_inches="tight", pad_inches=0.06, facecolor="white", **options)
            images.append(buffer.getvalue())
    return images[0], images[1].decode()


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
