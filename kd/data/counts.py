"""Count the rows that are read and those that are left out, each with its reason and the first lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LINES_KEPT = 20
ADVICE = {
    "filtered": "check data.where",
    "malformed": "check data.delimiter, data.quoting and data.text",
    "repeated_header": "check data.header",
    "nul": "the texts hold NUL characters: check data.encoding, which may be utf-16",
    "empty": "check data.text",
    "conflicting_duplicates": "check data.text and data.label",
    "unlabelled_held_out": "check data.label",
}
"""What to do if most rows are left out for a reason."""
DOUBTFUL = {
    "malformed": "are malformed",
    "conflicting_duplicates": "have the text of another row, but another label",
}
WORTH_A_WARNING = 0.05
"""Share of such rows from which a warning is logged."""


@dataclass
class Tally:
    """The number of rows that were left out for one reason, and the lines of the first of them."""

    count: int = 0
    lines: list[Any] = field(default_factory=list)
    fault: str = ""
    """What is wrong with the first of them, in words."""

    def add(self, line: Any, fault: str = "") -> None:
        """Count a row. Only the lines of the first `LINES_KEPT` rows are kept."""
        self.count += 1
        self.fault = self.fault or fault
        if len(self.lines) < LINES_KEPT:
            self.lines.append(line)


@dataclass
class Counts:
    """The number of rows that were read and, for each of `kd.data.splits.FATES`, left out; with their first lines.

    Attributes:
        faults: what is wrong with the first row of a fate, in words, where the fate alone does not say it.
    """

    read: int = 0
    fates: dict[str, int] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def add(self, fate: str, count: int, lines: Sequence[str] = (), fault: str = "") -> None:
        """Count rows that were left out. ``lines`` may name only the first of them."""
        self.fates[fate] = self.fates.get(fate, 0) + count
        known = self.lines.setdefault(fate, [])
        known += lines[: LINES_KEPT - len(known)]
        if fault:
            self.faults.setdefault(fate, fault)

    def merge(self, other: Counts) -> None:
        """Add the counts of later rows."""
        self.read += other.read
        for fate, count in other.fates.items():
            self.add(fate, count, other.lines[fate], other.faults.get(fate, ""))

    def add_unread(self, file: str, tallies: dict[str, Tally]) -> None:
        """Add the rows of a file that could not be read, by fate."""
        for fate, tally in tallies.items():
            if tally.count:
                self.read += tally.count
                self.add(fate, tally.count, [f"{file}:{line}" for line in tally.lines], tally.fault)
