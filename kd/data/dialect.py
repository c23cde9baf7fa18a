"""Find out how a delimited text file is written: its delimiter, its quotes, and whether it has a header."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from statistics import mean
from typing import Any, Literal

from kd.errors import KDError

Quoting = Literal["doubled", "backslash", "single", "none"]
Header = bool | list[str]

DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}
LARGEST_FIELD = 1 << 27
"""Characters in one field. In a longer one, a closing quote is missing."""
SAMPLE_ROWS = 200
ALIKE = 0.9
"""Share of rows with the same number of fields from which a delimiter fits a file."""
ENOUGH = 100
"""Quoted fields after which no further ones are looked at."""
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


@dataclass(frozen=True)
class Reading:
    """How text files are read. What is None is found out from each file.

    Args:
        encoding: of the texts. A byte order mark is removed.
        delimiter: the character between two fields, or its name, such as tab.
        quoting: how a quote inside a quoted field is written; "single" if fields are in single quotes, in which a quote
            is doubled; "none" if quotes are normal characters.
        header: whether the first line has the names of the columns, or these names, if no line has them.
        wanted: names of the columns that will be asked for, the texts first. They help to find the delimiter.
    """

    encoding: str = "utf-8"
    delimiter: str | None = None
    quoting: Quoting | None = None
    header: Header | None = None
    wanted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            names = {name: character for character, name in NAMES.items()} | {"\\t": "\t"}
            object.__setattr__(self, "delimiter", names.get(self.delimiter, self.delimiter))
            if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0':
                raise KDError(
                    f"data.delimiter={self.delimiter!r}: expected one character or one of {', '.join(NAMES.values())}, "
                    "as in data.delimiter=semicolon"
                )
        if isinstance(self.header, list) and (not self.header or len(set(self.header)) < len(self.header)):
            raise KDError(f"data.header={self.header}: expected a name for each column, each once")


@dataclass(frozen=True)
class Dialect:
    """How one file is written.

    Args:
        delimiter: the character between two fields.
        quoting: as in `Reading`.
        skip: whether the first line is Excel's ``sep=;``, which is no row.
    """

    delimiter: str
    quoting: Quoting
    skip: bool = False

    def reader(self, lines: Iterable[str]) -> Any:
        """Return the fields of each row, as `csv.reader` does."""
        csv.field_size_limit(LARGEST_FIELD)
        # strict: a misplaced quote makes one row malformed; otherwise it would silently swallow the next rows.
        options: dict[str, Any] = {"strict": True}
        match self.quoting:
            case "none":
                options["quoting"] = csv.QUOTE_NONE
            case "backslash":
                options |= {"escapechar": "\\", "doublequote": False}
            case "single":
                options["quotechar"] = "'"
        return csv.reader(lines, delimiter=self.delimiter, **options)


def sniffed(sample: Sequence[str], lines: Iterable[str], default: str, reading: Reading) -> Dialect:
    """Return the dialect of a file. What `reading` gives is taken, and the rest is found out.

    Args:
        sample: the first lines.
        lines: all lines; read only if the quotes of a tab-separated file have to be decided.
        default: the delimiter that the suffix says.
    """
    skip = bool(sample) and re.fullmatch(r"sep=(.)\r?\n?", sample[0].lstrip("\ufeff"), re.IGNORECASE) is not None
    first = sample[0].lstrip("\ufeff")[4] if skip else None
    rows = sample[1:] if skip else sample
    delimiter = reading.delimiter or first or _delimiter(rows, default, reading)
    if reading.quoting is not None:
        return Dialect(delimiter, reading.quoting, skip)
    if delimiter == "\t":
        return Dialect(delimiter, "doubled" if writes_quotes(lines, delimiter) else "none", skip)
    if _escapes(rows, delimiter):
        return Dialect(delimiter, "backslash", skip)
    return Dialect(delimiter, "single" if _in_single_quotes(rows, delimiter) else "doubled", skip)


def _delimiter(rows: Sequence[str], default: str, reading: Reading) -> str:
    """Return the delimiter whose header has the wanted columns, or else with which the rows have the same width."""
    found = {delimiter: fields_of(rows, delimiter) for delimiter in (default, *DELIMITERS)}
    if not isinstance(reading.header, list) and reading.header is not False:
        for delimiter, table in found.items():
            if table and reading.wanted and reading.wanted[0] in [field.strip("\"'") for field in table[0]]:
                return delimiter
    if _alike(found[default]) >= ALIKE:
        return default
    best = max(found, key=lambda delimiter: _alike(found[delimiter]))
    return best if _alike(found[best]) >= ALIKE else default


def fields_of(rows: Sequence[str], delimiter: str) -> list[list[str]]:
    """Return the fields of the first rows; of those before the first misplaced quote, if there is one."""
    table: list[list[str]] = []
    reader = csv.reader(rows, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL)
    with suppress(csv.Error):
        table += (fields for fields in islice(reader, SAMPLE_ROWS) if fields)
    return table


def _alike(table: Sequence[Sequence[str]]) -> float:
    """Return the share of rows whose width is the most frequent one; 0 if this is a single field."""
    (width, count), *_ = Counter(map(len, table)).most_common(1) or [(1, 0)]
    return count / len(table) if width > 1 else 0.0


def _escapes(rows: Sequence[str], delimiter: str) -> bool:
    r"""Return whether quotes are written as \", so that the rows can be read in this way alone."""
    if not any('\\"' in line for line in rows):
        return False
    doubled, escaped = (_faults(rows, Dialect(delimiter, quoting)) for quoting in ("doubled", "backslash"))
    return escaped == 0 < doubled


def _in_single_quotes(rows: Sequence[str], delimiter: str) -> bool:
    """Return whether fields are in single quotes: nearly every row has one, or its width is right in this way alone."""
    single, border = Dialect(delimiter, "single"), re.escape(delimiter)
    if not any("'" in line for line in rows) or any(f'{delimiter}"' in line for line in rows) or _faults(rows, single):
        return False
    widths, plain = _widths(single.reader(rows)), _widths(csv.reader(rows, delimiter=delimiter))
    wrapped = re.compile(rf"(^|{border})'[^{border}]*'({border}|\s*$)")
    share = mean(wrapped.search(line) is not None for line in rows[1:]) if rows[1:] else 0
    return len(widths) == 1 < min(widths) and (len(plain) > 1 or share >= ALIKE)


def _widths(reader: Iterable[list[str]]) -> set[int]:
    """Return the numbers of fields of the first rows; the sample may end within a row."""
    found = set[int]()
    with suppress(csv.Error):
        found |= {len(fields) for fields in islice(reader, SAMPLE_ROWS) if fields}
    return found


def _faults(rows: Sequence[str], dialect: Dialect) -> int:
    reader, faults = dialect.reader(rows), 0
    while True:
        try:
            next(reader)
        except StopIteration:
            return faults
        except csv.Error as error:
            # The sample may end within a row.
            faults += "unexpected end of data" not in str(error)


def writes_quotes(lines: Iterable[str], delimiter: str) -> bool:
    """Return whether a file without a rule for quotes, such as TSV, has them as CSV does, for example from pandas.

    It does if every field with a quote is quoted, and one of them could not be otherwise: it has a doubled quote,
    contains a delimiter or a line end, or stands in a header of quoted names.
    """
    lines = iter(lines)
    first, raw = next(lines, ""), list[str]()
    width = first.count(delimiter) + 1

    def quoted() -> Iterator[str]:
        for line in chain([first], lines):
            if '"' in line or raw:  # raw: a quote is still open
                raw.append(line)
                yield line

    reader, evidence = Dialect(delimiter, "doubled").reader(quoted()), 0
    while evidence < ENOUGH:
        raw.clear()
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error:
            return False
        inside = [field.count('"') for field in fields if '"' in field]
        if "".join(raw).count('"') < sum(2 + 2 * count for count in inside):
            return False  # a quote in a field that is not quoted
        broken = any(line.count(delimiter) + 1 != width for line in raw) and len(fields) == width
        header = raw[:1] == [first] and first.count('"') == 2 * len(fields)
        evidence += bool(inside) or broken or header
    return evidence > 0


def looks_like_a_row(fields: Sequence[str]) -> bool:
    """Return whether a first line holds values, and not the names of columns.

    >>> looks_like_a_row(["0", "what a film"]), looks_like_a_row(["text", "label 2"])
    (True, False)
    """
    return any(NUMBER.fullmatch(field.strip()) or len(field.split()) > 4 or len(field) > 60 for field in fields)


def names_for(table: Sequence[Sequence[str]], text: str, label: str) -> list[str]:
    """Suggest names for the columns of a file without a header: the longest is the text, the most repeated the label.

    >>> names_for([["0", "7", "a film"], ["1", "8", "a plot"], ["0", "9", "so warm"]], "text", "label")
    ['label', 'column_2', 'text']
    """
    columns = list(zip(*(row for row in table if len(row) == len(table[0])), strict=True))
    names = [f"column_{number}" for number in range(1, len(columns) + 1)]
    kinds = {place: len(set(column)) for place, column in enumerate(columns)}
    varied = [place for place, count in kinds.items() if count > 1] or list(kinds)
    longest = max(varied, key=lambda place: mean(map(len, columns[place])))
    names[longest] = text
    if others := [place for place in varied if place != longest]:
        names[min(others, key=kinds.__getitem__)] = label
    return names
