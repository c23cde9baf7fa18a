"""Read CSV, TSV, JSONL, Parquet and Arrow files, one row at a time, each with its line number."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TextIO, cast

from kd.errors import KDError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow")
BINARY = (".parquet", ".arrow")
LARGEST_FIELD = 1 << 27
"""Characters in one CSV field. In a longer one, a closing quote is missing."""
LINES_KEPT = 20

Row = dict[str, Any]
NumberedRow = tuple[int, Row]


@dataclass
class Tally:
    """The number of rows that were left out for one reason, and the lines of the first of them."""

    count: int = 0
    lines: list[Any] = field(default_factory=list)

    def add(self, line: Any) -> None:
        """Count a row. Only the lines of the first `LINES_KEPT` rows are kept."""
        self.count += 1
        if len(self.lines) < LINES_KEPT:
            self.lines.append(line)


@dataclass
class Counts:
    """The number of rows that were read and, for each of `kd.data.splits.FATES`, left out; with their first lines."""

    read: int = 0
    fates: dict[str, int] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)

    def add(self, fate: str, count: int, lines: Sequence[str] = ()) -> None:
        """Count rows that were left out. ``lines`` may name only the first of them."""
        self.fates[fate] = self.fates.get(fate, 0) + count
        known = self.lines.setdefault(fate, [])
        known += lines[: LINES_KEPT - len(known)]

    def merge(self, other: Counts) -> None:
        """Add the counts of later rows."""
        self.read += other.read
        for fate, count in other.fates.items():
            self.add(fate, count, other.lines[fate])

    def add_unread(self, rows: Rows) -> None:
        """Add the rows of a file that could not be read."""
        for fate, tally in (("malformed", rows.malformed), ("empty", rows.blank)):
            if tally.count:
                self.read += tally.count
                self.add(fate, tally.count, [f"{rows.path.name}:{line}" for line in tally.lines])


class Rows:
    """The rows of one file as ``(line, {column: value})``. They are read during iteration, which is possible once.

    Lines are numbered from 1, the header included; a row of several lines has the number of its first line. In a
    Parquet or Arrow file, the rows are numbered from 1.

    Attributes:
        columns: names in the file's order (JSONL: those of the first row).
        malformed: rows left out because of a wrong number of fields or misplaced quotes.
        blank: empty lines.
    """

    def __init__(self, path: Path, encoding: str):
        self.path = path
        self.malformed = Tally()
        self.blank = Tally()
        self.wanted: list[str] | None = None
        self._rows = _READERS[file_format(path)](self, encoding)
        self.columns: list[str] = next(self._rows)

    def __iter__(self) -> Iterator[NumberedRow]:
        return self._rows

    def only(self, *columns: str) -> Rows:
        """Read only these columns, if the format can skip the others."""
        self.wanted = list(columns)
        return self

    def require(self, column: str, option: str) -> None:
        """Refuse a file without this column; ``option`` is the key that names it in the configuration.

        Raises:
            KDError: the column is missing.
        """
        if column not in self.columns:
            raise KDError(
                f"{self.path} has no column {column!r}; it has {', '.join(map(repr, self.columns))}; "
                f"set {option} to one of them"
            )


def read_rows(path: str | Path, encoding: str = "utf-8") -> Rows:
    """Open a file of rows. Memory holds one row at a time (Parquet: 1,000 rows; Arrow: a record batch of the file).

    Args:
        path: .csv (fields may be quoted), .tsv (as in GLUE, quotes are normal characters) or .jsonl (one object in
            each line), each also with .gz; .parquet; .arrow (a file or a stream of record batches).
        encoding: of the text formats. A byte order mark before UTF-8 is removed.

    Raises:
        KDError: the file is missing or empty, its suffix is unknown, or two columns have the same name; during
            iteration: text that is not in ``encoding``, a line that is not JSON, a quote that is never closed.
    """
    return Rows(Path(path), encoding)


def file_format(path: Path) -> str:
    """Return the suffix of a file, without ``.gz``.

    Raises:
        KDError: the suffix is not one of `SUFFIXES`.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    suffix = "".join(suffixes[:-1][-1:] if packed else suffixes[-1:])
    if suffix not in SUFFIXES or (packed and suffix in BINARY):
        raise KDError(
            f"cannot tell the format of {path} from its suffix: expected {', '.join(SUFFIXES)} "
            f"(all but {' and '.join(BINARY)} also with .gz); rename or convert it"
        )
    return suffix


@contextmanager
def _opened(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open a text file. Its line ends (LF, CR LF, CR) are not changed."""
    try:
        codec = codecs.lookup(encoding).name
    except LookupError:
        raise KDError(f"unknown encoding {encoding!r}: expected one such as utf-8, latin-1 or gb18030") from None
    codec = "utf-8-sig" if codec == "utf-8" else codec
    try:
        with _binary(path) as raw, io.TextIOWrapper(raw, encoding=codec, newline="") as stream:
            yield stream
    except UnicodeError as error:
        raise KDError(
            f"{path}{_undecodable(path, codec)} not {encoding} text; convert the file, or set its encoding, "
            "for example data.encoding=latin-1"
        ) from error
    except OSError as error:
        raise KDError(_unreadable(path, error)) from error
    except (EOFError, zlib.error) as error:
        raise KDError(f"{path} is not a complete gzip file ({error}); download or compress it again") from error


def _binary(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb"))


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no file {path}; check the path (it is relative to {Path.cwd()})"
    return f"cannot read {path}: {error.strerror or error}"


def _undecodable(path: Path, codec: str) -> str:
    """Return the position of the first byte that is not in ``codec``, in words. This reads the file a second time."""
    decoder = codecs.getincrementaldecoder(codec)()
    line, after_cr = 1, False
    with _binary(path) as stream:
        while chunk := stream.read(1 << 20):
            try:
                text, fault = decoder.decode(chunk), ""
            except UnicodeDecodeError as error:
                text = error.object[: error.start].decode(codec, errors="replace")
                fault = f"byte 0x{error.object[error.start]:02X} is"
            except UnicodeError:
                return " is"
            # A CR LF that is divided between two chunks is one line end.
            line += text.count("\n") + text.count("\r") - text.count("\r\n")
            line -= after_cr and text.startswith("\n")
            after_cr = text.endswith("\r")
            if fault:
                return f", line {line}: {fault}"
    return ", its last character: it is"


def _delimited(delimiter: str, quoting: Literal[0, 3]) -> Callable[[Rows, str], Iterator[Any]]:
    def read(rows: Rows, encoding: str) -> Iterator[Any]:
        csv.field_size_limit(LARGEST_FIELD)
        with _opened(rows.path, encoding) as stream:
            # strict: a misplaced quote makes one row malformed; otherwise it would silently swallow the next rows.
            reader = csv.reader(stream, delimiter=delimiter, quoting=quoting, strict=True)
            parsed = _parsed(rows.path, reader)
            line, header = next(((line, fields) for line, fields in parsed if fields != []), (0, None))
            if header is None:
                fault = f"has a misplaced quote on line {line}" if line else "is empty"
                raise KDError(f"{rows.path} {fault}; expected a first line with the names of the columns")
            yield _named_once(rows.path, header)
            for line, fields in parsed:
                if fields is None or len(fields) not in (0, len(header)):
                    rows.malformed.add(line)
                elif not fields:
                    rows.blank.add(line)
                else:
                    yield line, dict(zip(header, fields, strict=True))

    return read


def _parsed(path: Path, reader: Any) -> Iterator[tuple[int, list[str] | None]]:
    """Yield the first line and the fields of each row; the fields are None if a quote in them is misplaced."""
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error) or "field larger" in str(error):
                raise KDError(
                    f"{path}, line {line}: a quote that opens there is never closed; close it, or double the "
                    "quotes inside the field"
                ) from error
            fields = None
        yield line, fields


def _named_once(path: Path, columns: Sequence[str]) -> list[str]:
    twice = sorted({column for column in columns if list(columns).count(column) > 1})
    if twice:
        raise KDError(f"{path} has more than one column {twice[0]!r}; give each column a name of its own")
    return list(columns)


def _jsonl(rows: Rows, encoding: str) -> Iterator[Any]:
    first = True
    with _opened(rows.path, encoding) as stream:
        for line, content in enumerate(stream, start=1):
            if not content.strip():
                rows.blank.add(line)
                continue
            try:
                row = json.loads(content)
            except (ValueError, RecursionError) as error:
                raise KDError(
                    f"{rows.path}, line {line} is not JSON ({error}); expected one complete object in each line"
                ) from error
            if not isinstance(row, dict):
                raise KDError(
                    f"{rows.path}, line {line} holds a JSON {type(row).__name__}; expected one object in each "
                    'line, such as {"text": "...", "label": 1}'
                )
            if first:
                yield list(row)
                first = False
            yield line, row
    if first:
        raise KDError(f"{rows.path} is empty; expected one JSON object in each line")


def _parquet(rows: Rows, encoding: str) -> Iterator[Any]:
    from pyarrow import parquet

    # Without reading whole row groups ahead, memory does not depend on their size.
    with _columnar(rows.path), parquet.ParquetFile(rows.path, pre_buffer=False, buffer_size=1 << 20) as file:
        yield _named_once(rows.path, file.schema_arrow.names)
        # No threads: a sweep's fork server reads files as well, and a process with threads must not fork.
        yield from _numbered(file.iter_batches(batch_size=1000, columns=rows.wanted, use_threads=False))


def _arrow(rows: Rows, encoding: str) -> Iterator[Any]:
    import pyarrow
    from pyarrow import ipc

    with _columnar(rows.path), pyarrow.OSFile(str(rows.path)) as source:
        magic = source.read(6)
        source.seek(0)
        if magic == b"ARROW1":
            file = ipc.open_file(source)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            file = batches = ipc.open_stream(source)
        yield _named_once(rows.path, file.schema.names)
        yield from _numbered(batch.select(rows.wanted or file.schema.names) for batch in batches)


def _numbered(batches: Iterable[Any]) -> Iterator[NumberedRow]:
    line = 0
    for batch in batches:
        for start in range(0, len(batch), 1000):
            for row in batch.slice(start, 1000).to_pylist():
                line += 1
                yield line, row


@contextmanager
def _columnar(path: Path) -> Iterator[None]:
    import pyarrow

    name = {".parquet": "Parquet", ".arrow": "Arrow"}[path.suffix.lower()]
    try:
        yield
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise KDError(f"{path} is not a {name} file, or is damaged ({reason}); convert or download it again") from error
    except OSError as error:
        raise KDError(_unreadable(path, error)) from error


_READERS: dict[str, Callable[[Rows, str], Iterator[Any]]] = {
    ".csv": _delimited(",", csv.QUOTE_MINIMAL),
    ".tsv": _delimited("\t", csv.QUOTE_NONE),
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
