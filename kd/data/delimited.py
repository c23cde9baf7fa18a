"""Read CSV, TSV and other delimited text, one row at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kd.data.counts import Tally
from kd.data.dialect import NAMES, Dialect, Reading, fields_of, looks_like_a_row, names_for, sniffed
from kd.data.opening import opened
from kd.data.plain import first_lines
from kd.errors import KDError


class DelimitedFile:
    """A delimited text file: its dialect, its columns and its rows.

    Args:
        path: of the file.
        reading: what is known of it.
        default: the delimiter that its suffix says.

    Raises:
        KDError: it is empty, or its first line is not what `reading` says.

    Attributes:
        dialect: how it is written.
        header: whether its first line has the names of the columns.
        columns: their names.
        malformed, blank, repeated: rows that are left out: another number of fields or a misplaced quote; nothing; the
            header once more.
    """

    def __init__(self, path: Path, reading: Reading, default: str):
        self.path, self.reading = path, reading
        sample = first_lines(path, reading.encoding)
        with opened(path, reading.encoding) as lines:
            self.dialect = sniffed(sample, lines, default, reading)
        self.sample = sample[1:] if self.dialect.skip else sample
        self.malformed, self.blank, self.repeated = Tally(), Tally(), Tally()
        self.names, self.header = self._names()
        self.columns = named_once(self.names)

    def _names(self) -> tuple[list[str], bool]:
        """Return the names of the columns, and whether the first line has them."""
        parsed = _parsed(self.path, self.dialect, self.sample)
        line, first = next(((line, fields) for line, fields in parsed if fields != []), (0, None))
        if first is None:
            fault = f"has a misplaced quote on line {line}" if line else "is empty"
            raise KDError(f"{self.path} {fault}; expected a first line with the names of the columns")
        header = self.reading.header
        if isinstance(header, list):
            if len(header) != len(first):
                raise KDError(
                    f"data.header has {len(header)} names, and the first line of {self.path} has {len(first)} fields; "
                    "expected a name for each"
                )
            return header, header == first
        if header is False:
            return [f"column_{number}" for number in range(1, len(first) + 1)], False
        return first, True

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows with their lines."""
        with opened(self.path, self.reading.encoding) as stream:
            if self.dialect.skip:
                next(stream)
            parsed = _parsed(self.path, self.dialect, stream, 1 + self.dialect.skip)
            if self.header:
                next(fields for _, fields in parsed if fields)
            width = len(self.columns)
            for line, fields in parsed:
                if fields is None:
                    self.malformed.add(line, "a misplaced quote")
                elif not fields:
                    self.blank.add(line)
                elif len(fields) != width:
                    self.malformed.add(line, f"{len(fields)} fields instead of {width}")
                elif self.header and fields == self.names:
                    self.repeated.add(line)
                else:
                    yield line, dict(zip(self.columns, fields, strict=True))

    def hint(self) -> str:
        """Return what to do about a column that is missing, in words, where the delimiter or the header explains it."""
        text, label = self.reading.wanted if len(self.reading.wanted) == 2 else ("text", "label")
        if self.header and looks_like_a_row(self.names):
            names = ",".join(names_for(fields_of(self.sample, self.dialect.delimiter), text, label))
            return (
                f"; its first line looks like a row, not like names: data.header=[{names}] gives a name to each column"
            )
        if len(self.names) == 1:
            return f"; with the delimiter {named(self.dialect.delimiter)}, each line is one field: set data.delimiter"
        return ""


def named(delimiter: str) -> str:
    """Return a delimiter as it is called.

    >>> named(";"), named("x")
    ("';' (semicolon)", "'x'")
    """
    return repr(delimiter) + (f" ({NAMES[delimiter]})" if delimiter in NAMES else "")


def named_once(names: Sequence[str]) -> list[str]:
    """Return a different name for each column: one without a name, or with that of another, gets its place as well.

    >>> named_once(["", "text", "text", ""])
    ['', 'text', 'text (column 3)', 'column 4']
    """
    found: list[str] = []
    for number, name in enumerate(names, start=1):
        unique = f"{name} (column {number})" if name else f"column {number}"
        found.append(unique if name in found else name)
    return found


def _parsed(path: Path, dialect: Dialect, lines: Any, first: int = 1) -> Iterator[tuple[int, list[str] | None]]:
    """Yield the first line and the fields of each row; the fields are None if a quote in them is misplaced."""
    reader = dialect.reader(lines)
    while True:
        line = reader.line_num + first
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error) or "field larger" in str(error):
                raise KDError(
                    f"{path}, line {line}: a quote that opens there is never closed; close it, double the "
                    "quotes inside the field, or set data.quoting=none if quotes are normal characters"
                ) from error
            fields = None
        yield line, fields
