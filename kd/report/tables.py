"""A table, written as Markdown, CSV or LaTeX with ``booktabs``; the HTML page reads its rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from kd.report.words import plain

TEX = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "\\": "\\textbackslash{}",
    "±": "$\\pm$",
    "−": "$-$",
    "–": "--",
    "×": "$\\times$",
    "α": "$\\alpha$",
    "<": "$<$",
    ">": "$>$",
}


class Cell(NamedTuple):
    """The text of a cell, and its unrounded value: a number, or the two bounds of an interval."""

    text: str
    value: float | tuple[float, ...] | None = None

    @property
    def order(self) -> float | None:
        """The number by which the cell is sorted, if it has one."""
        return self.value[0] if isinstance(self.value, tuple) else self.value


EMPTY = Cell("")


@dataclass(frozen=True)
class Table:
    """One table.

    Args:
        name: of its files.
        rows: one cell for each column.
        notes: sentences below it.
        words: columns that hold words and are aligned left; the others hold numbers.
        marked: number of the row to highlight, such as the chosen one.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    words: Sequence[str] = ("model",)
    marked: int | None = None

    def csv(self) -> str:
        """Write unrounded numbers, or the text of cells without one; an interval takes two columns."""
        header: list[str] = []
        lines: list[list[str]] = [[] for _ in self.rows]
        for column, cells in zip(self.columns, zip(*self.rows, strict=True), strict=True):
            two = any(isinstance(cell.value, tuple) for cell in cells)
            header += [f"{column} low", f"{column} high"] if two else [column]
            for line, (text, value) in zip(lines, cells, strict=True):
                line += map(repr, value) if isinstance(value, tuple) else [text if value is None else repr(value)]
                line += [""] * (len(header) - len(line))
        return csv_text([header, *lines])

    @property
    def texts(self) -> list[list[str]]:
        """The header and the rows as they are shown."""
        return [list(self.columns), *([cell.text for cell in row] for row in self.rows)]

    def markdown(self) -> str:
        """Write the table and its notes."""
        escape = lambda text: marked_down(text).replace("|", "\\|")  # noqa: E731
        header, *body = ["| " + " | ".join(map(escape, line)) + " |" for line in self.texts]
        sides = " | ".join("---" if column in self.words else "---:" for column in self.columns)
        return "\n\n".join(["\n".join([header, f"| {sides} |", *body]), *map(marked_down, self.notes)]) + "\n"

    def tex(self, commands: Sequence[str] = ()) -> str:
        """Write LaTeX for ``\\input``; it needs ``\\usepackage{booktabs}``."""
        made = [f"% {line}" for line in ["\\usepackage{booktabs}", *map(plain, commands)]]
        sides = "".join("l" if column in self.words else "r" for column in self.columns)
        lines = [" & ".join(map(tex, line)) + r" \\" for line in self.texts]
        # LaTeX reads a bracket or star at the beginning of a line as an option of the line end before it.
        header, *body = ["{}" * line.startswith(("[", "*")) + line for line in lines]
        top = [f"\\begin{{tabular}}{{{sides}}}", "\\toprule", header, "\\midrule"]
        return "\n".join([*made, *top, *body, "\\bottomrule", "\\end{tabular}", ""])


def tex(text: str) -> str:
    """Escape text for LaTeX.

    >>> tex("50 % of a_b")
    '50 \\\\% of a\\\\_b'
    """
    return "".join(TEX.get(letter, letter) for letter in plain(text))


def marked_down(text: str) -> str:
    """Escape text for Markdown, so that it holds no HTML and no links.

    >>> marked_down("<img> [a](b)")
    '&lt;img> [a]\\\\(b)'
    """
    return plain(text).replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(")


def code(text: str) -> str:
    """Write a command in Markdown."""
    return "`" + plain(text).replace("`", "'") + "`"


def csv_text(rows: Sequence[Sequence[object]]) -> str:
    """Write rows as the text of a CSV file."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([list(map(no_formula, row)) for row in rows])
    return buffer.getvalue()


def no_formula(cell: object) -> object:
    """Change a cell that a spreadsheet would read as a formula into text.

    >>> [no_formula(cell) for cell in ("=1+1", "-0.5", "hints pca")]
    ["'=1+1", '-0.5', 'hints pca']
    """
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def percent(value: float | None, digits: int = 1, sign: str = "") -> Cell:
    """Show a share in per cent, with its sign where ``sign`` is "+"; the CSV has the share."""
    return EMPTY if value is None else Cell(f"{100 * value:{sign}.{digits}f}".replace("-", "−"), float(value))


points = partial(percent, sign="+")
"""Show a difference of two shares in percentage points."""


def number(value: float | None, digits: int = 2) -> Cell:
    """Show a number with the given decimals."""
    return EMPTY if value is None else Cell(f"{value:,.{digits}f}", float(value))


def probability(value: float) -> Cell:
    """Show a p-value.

    >>> [probability(value).text for value in (0.0412, 0.00034, 1e-12)]
    ['0.041', '3.4e-04', '<1e-11']
    """
    text = "<1e-11" if value < 1e-11 else f"{value:.1e}" if value < 0.001 else f"{value:.3f}"
    return Cell(text, value)
