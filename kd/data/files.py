"""Read the rows of a file, one at a time, each with its line number, whatever its format is."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd.data import columnar, plain
from kd.data.counts import Counts, Tally
from kd.data.delimited import DelimitedFile, named
from kd.data.dialect import Reading
from kd.data.opening import COMPRESSIONS, member, require_kind
from kd.errors import KDError

DELIMITED = {".csv": ",", ".tsv": "\t"}
COLUMNAR = {".parquet": columnar.parquet_rows, ".arrow": columnar.arrow_rows, ".feather": columnar.arrow_rows}
SUFFIXES = (*DELIMITED, ".jsonl", ".ndjson", ".json", ".txt", *COLUMNAR)

Row = dict[str, Any]
NumberedRow = tuple[int, Row]


@dataclass(frozen=True)
class Place:
    """A file or folder with rows.

    Args:
        path: a file, or a folder of texts that all have one label.
        label: that label.
        labels: file with the labels of the texts in ``path``, one a line.
        names: name of each label id, if the ids are in ``labels``.
    """

    path: Path
    label: str | None = None
    labels: Path | None = None
    names: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """The name of the place in messages and counts."""
        return self.path.name if self.label is None else f"{self.path.parent.name}/{self.path.name}"


class Rows:
    """The rows of one file as ``(line, {column: value})``. They are read during iteration, which is possible once.

    Lines are numbered from 1, the header included; a row of several lines has the number of its first line. In a
    JSON array, a Parquet or an Arrow file, the rows are numbered from 1; in a folder, its files.

    Attributes:
        columns: names in the file's order (JSON: those of the first row).
        names: class names of the columns whose values are their ids.
        taken: what was found out about the format, in words.
        left_out: rows that could not be read, by fate (`kd.data.splits.FATES`).
        in_memory: whether the whole file is in memory while it is read.
    """

    def __init__(self, place: Path | Place, reading: Reading):
        if isinstance(place, Path):
            place = Place(place, label="" if place.is_dir() else None)
        self.place = place
        self.path, self.reading = self.place.path, reading
        self.left_out = {"malformed": Tally(), "empty": Tally(), "repeated_header": Tally()}
        self.names: dict[str, list[str]] = {}
        self.wanted: list[str] | None = None
        self.in_memory = False
        self._hint = ""
        self._file: DelimitedFile | None = None
        self.format = "folder" if self.place.label is not None else file_format(self.path, reading)
        self.taken = self.format.lstrip(".")
        if self.path.is_file():
            require_kind(self.path)
        self.columns, self._rows = self._opened()

    def _opened(self) -> tuple[list[str], Iterator[NumberedRow]]:
        """Return the columns and the rows."""
        if self.place.label is not None or self.place.labels is not None:
            if self.place.names is not None:
                self.names = {"label": list(self.place.names)}
            read = (
                plain.paired_rows(self.place.labels) if self.place.labels else plain.folder_rows(self.place.label or "")
            )
            self.taken = f"texts and {self.place.labels.name}" if self.place.labels else "a file for each text"
        elif self.format in COLUMNAR:
            return self._opened_columnar()
        elif self.format in DELIMITED:
            return self._opened_delimited(DELIMITED[self.format])
        elif self.format == ".txt":
            start = plain.first_lines(self.path, self.reading.encoding)
            if not plain.is_fasttext(start) and (self.reading.delimiter or _tabs(start)):
                return self._opened_delimited(self.reading.delimiter or "\t")
            read = plain.fasttext_rows if plain.is_fasttext(start) else plain.line_rows
            self.taken = "fastText" if plain.is_fasttext(start) else "a text in each line"
        else:
            self.in_memory = plain.is_array(self.path, self.reading)
            read = plain.array_rows if self.in_memory else plain.object_rows
            self.taken = "a JSON array" if self.in_memory else "a JSON object in each line"
        rows = read(self.path, self.reading, self.blank)
        return next(rows), rows

    def _opened_columnar(self) -> tuple[list[str], Iterator[NumberedRow]]:
        rows = COLUMNAR[self.format](self.path, lambda: self.wanted)
        columns, schema = next(rows)
        self.names = columnar.class_names(schema)
        if binary := columnar.binary_columns(schema, self.reading.wanted):
            rows = columnar.decoded(self.path, rows, binary, self.reading.encoding)
            self.taken += f", {' and '.join(map(repr, binary))} as bytes"
        return columns, rows

    def _opened_delimited(self, default: str) -> tuple[list[str], Iterator[NumberedRow]]:
        self._file = file = DelimitedFile(self.path, self.reading, default)
        self.left_out = {"malformed": file.malformed, "empty": file.blank, "repeated_header": file.repeated}
        self.taken = f"{self.taken}, delimiter {named(file.dialect.delimiter)}, quotes {file.dialect.quoting}"
        self.taken += "" if file.header else ", no header"
        return file.columns, file.rows()

    @property
    def unusual(self) -> bool:
        """Whether the file is written in another way than its suffix says."""
        if self._file is None:
            return False
        usual = {",": "doubled", "\t": "none"}
        dialect, default = self._file.dialect, DELIMITED.get(self.format, "\t")
        given = self.reading.delimiter is not None and self.reading.quoting is not None
        return not given and (dialect.delimiter != default or dialect.quoting != usual[default] or dialect.skip)

    @property
    def malformed(self) -> Tally:
        """Rows left out because of a wrong number of fields or misplaced quotes."""
        return self.left_out["malformed"]

    @property
    def blank(self) -> Tally:
        """Empty lines."""
        return self.left_out["empty"]

    def __iter__(self) -> Iterator[NumberedRow]:
        return self._rows

    def only(self, *columns: str) -> Rows:
        """Read only these columns, if the format can skip the others."""
        self.wanted = list(columns)
        return self

    def count_in(self, counts: Counts) -> None:
        """Count the rows that could not be read."""
        counts.add_unread(self.place.name, self.left_out)

    def require(self, column: str, option: str) -> None:
        """Refuse a file without this column; ``option`` is the key that names it in the configuration.

        Raises:
            KDError: the column is missing, or two have its name.
        """
        if column not in self.columns:
            found = ", ".join(map(repr, self.columns[:20])) + (", ..." if len(self.columns) > 20 else "")
            hint = self._file.hint() if self._file else ""
            raise KDError(f"{self.path} has no column {column!r}; it has {found}{hint or self._advice(column, option)}")
        if self._file and self._file.names.count(column) > 1:
            raise KDError(f"{self.path} has more than one column {column!r}; give each column a name of its own")

    def _advice(self, column: str, option: str) -> str:
        """Return which of the columns may be meant, in words."""
        folded = {name.strip().casefold(): name for name in self.columns}
        close = difflib.get_close_matches(column.casefold(), folded, 1)
        if not close:
            return f"; set {option} to one of them"
        name = folded[close[0]]
        return f"; set {option}={name if name.isidentifier() else repr(name)}"


def read_rows(place: str | Path | Place, encoding: str | Reading = "utf-8") -> Rows:
    """Open a file of rows. Memory holds one row at a time (Parquet: 1,000 rows; Arrow: a record batch of the file).

    Args:
        place: .csv (fields may be quoted), .tsv (as in GLUE, quotes are normal characters, unless they are written as
            in CSV), .jsonl (one object in each line), .json (the same, or a list of objects, which is in memory),
            .txt (fastText, tab-separated, or a text in each line), each also compressed (`COMPRESSIONS`); .parquet;
            .arrow (a file or a stream of record batches); or a folder with a text in each .txt file.
        encoding: of the text formats; or all that is known of them.

    Raises:
        KDError: the file is missing or empty, or its suffix is unknown; during iteration: text that is not in
            ``encoding``, a line that is not JSON, a quote that is never closed.
    """
    reading = encoding if isinstance(encoding, Reading) else Reading(encoding)
    return Rows(Path(place) if isinstance(place, str) else place, reading)


def file_format(path: Path, reading: Reading | None = None) -> str:
    """Return the suffix of a file, without ``.gz`` and its kin. With a given delimiter, any other file is CSV.

    Raises:
        KDError: the suffix is not one of `SUFFIXES`.
    """
    packed = path.suffix.lower() in COMPRESSIONS
    inner = Path(path.stem) if packed else path
    if path.suffix.lower() == ".zip" and path.is_file():
        inner = Path(member(path))
    suffix = inner.suffix.lower()
    if suffix in SUFFIXES and not (packed and suffix in COLUMNAR):
        return suffix
    if reading is not None and reading.delimiter is not None and suffix not in COLUMNAR:
        return ".csv"
    if not (path.suffix or path.exists()):
        raise KDError(f"expected a file or folder at '{path}', found none; check the path")
    raise KDError(
        f"cannot tell the format of {path} from its suffix: expected {', '.join(SUFFIXES)} "
        f"(all but {', '.join(COLUMNAR)} also with {', '.join(COMPRESSIONS)}); rename or convert it, or set "
        "data.delimiter if it is delimited text"
    )


def _tabs(lines: list[str]) -> bool:
    """Return whether each line has the same number of tabs, at least one."""
    counts = {line.count("\t") for line in lines if line.strip()}
    return len(counts) == 1 and counts != {0}
