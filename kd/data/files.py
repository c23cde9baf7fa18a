"""Rows out of files, one at a time, each with the number of its line: CSV, TSV, JSONL, Parquet and Arrow."""

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
from typing import Any, TextIO

from kd.errors import KDError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow")
BINARY = (".parquet", ".arrow")
LARGEST_FIELD = 1 << 27
"""Characters in one CSV field; beyond that somebody forgot a closing quote."""
LINES_KEPT = 20

Row = dict[str, Any]
NumberedRow = tuple[int, Row]


@dataclass
class Tally:
    """How many rows shared a fate, and where the first of them are."""

    count: int = 0
    lines: list[Any] = field(default_factory=list)

    def add(self, line: Any) -> None:
        """Count a row; only the first `LINES_KEPT` are remembered."""
        self.count += 1
        if len(self.lines) < LINES_KEPT:
            self.lines.append(line)


class Rows:
    """The rows of one file as ``(line, {column: value})``; read once, while iterated over.

    Lines count from 1, the header's included; a row that spans lines has the number of its first. Rows
    of a Parquet or Arrow file count from 1.

    Attributes:
        columns: names in the file's order (JSONL: those of the first row).
        malformed: rows left out for a wrong number of fields or misplaced quotes.
        blank: lines left out because nothing stands on them.
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
        """The rows with at least these columns, and no others where the format spares reading them."""
        self.wanted = list(columns)
        return self

    def require(self, column: str, option: str) -> None:
        """Raises:
        KDError: where the file has no such column; ``option`` is what the user would set.
        """
        if column not in self.columns:
            raise KDError(
                f"{self.path} has no column {column!r}; it has {', '.join(map(repr, self.columns))}; "
                f"set {option} to one of them"
            )


def read_rows(path: str | Path, encoding: str = "utf-8") -> Rows:
    """Open a file of rows; memory holds one row (Parquet: a thousand; Arrow: a batch as it was written) at a time.

    Args:
        path: .csv (quoted fields), .tsv (as in GLUE: quotes are plain characters), .jsonl (one object a
            line), each also with .gz; .parquet; .arrow (a file or a stream of record batches).
        encoding: of the text formats; a byte order mark before UTF-8 is dropped.

    Returns:
        `Rows`, which keeps every column of the input.

    Raises:
        KDError: no such file, an unknown suffix, an empty file, a column name twice; while iterated
            over: text that is not in ``encoding``, a JSON line that is none, a quote left open.
    """
    return Rows(Path(path), encoding)


def file_format(path: Path) -> str:
    """The suffix that says how a file is read, ``.gz`` left aside.

    Raises:
        KDError: for any other than those of `SUFFIXES`.
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
    """A text file whose line ends (LF, CR LF, CR) are recognised and left as they are."""
    try:
        codec = codecs.lookup(encoding).name
    except LookupError:
        raise KDError(f"unknown encoding {encoding!r}; expected one such as utf-8, latin-1 or gb18030") from None
    codec = "utf-8-sig" if codec == "utf-8" else codec
    try:
        with _binary(path) as raw, io.TextIOWrapper(raw, encoding=codec, newline="") as stream:
            yield stream
    except UnicodeError as error:
        raise KDError(
            f"{path}{_undecodable(path, codec)} not {encoding} text; convert the file, or name its encoding, "
            "for example data.encoding=latin-1"
        ) from error
    except OSError as error:
        raise KDError(_unreadable(path, error)) from error
    except (EOFError, zlib.error) as error:
        raise KDError(f"{path} is no whole gzip file ({error}); fetch or pack it again") from error


def _binary(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no file {path}; check the path (it is relative to {Path.cwd()})"
    return f"cannot read {path}: {error.strerror or error}"


def _undecodable(path: Path, codec: str) -> str:
    """Where the first byte that is not in ``codec`` stands: a second pass, taken only on failure."""
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
            # A CR LF that falls on the border of two chunks is one line end.
            line += text.count("\n") + text.count("\r") - text.count("\r\n")
            line -= after_cr and text.startswith("\n")
            after_cr = text.endswith("\r")
            if fault:
                return f", line {line}: {fault}"
    return ", its last character: it is"


def _delimited(delimiter: str, quoting: int) -> Callable[[Rows, str], Iterator[Any]]:
    def read(rows: Rows, encoding: str) -> Iterator[Any]:
        csv.field_size_limit(LARGEST_FIELD)
        with _opened(rows.path, encoding) as stream:
            # strict: a stray quote makes a row unusable instead of swallowing its neighbours unseen.
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
    """Each row's first line and its fields; None for fields where a stray quote stands among them."""
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
        raise KDError(f"{path} has more than one column {twice[0]!r}; give each column its own name")
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
                    f"{rows.path}, line {line} is no JSON ({error}); expected one whole object a line"
                ) from error
            if not isinstance(row, dict):
                raise KDError(
                    f"{rows.path}, line {line} holds a JSON {type(row).__name__}; expected one object a "
                    'line, such as {"text": "...", "label": 1}'
                )
            if first:
                yield list(row)
                first = False
            yield line, row
    if first:
        raise KDError(f"{rows.path} is empty; expected one JSON object a line")


def _parquet(rows: Rows, encoding: str) -> Iterator[Any]:
    from pyarrow import parquet

    # Without a read-ahead of whole row groups, memory does not depend on how large they are.
    with _columnar(rows.path), parquet.ParquetFile(rows.path, pre_buffer=False, buffer_size=1 << 20) as file:
        yield _named_once(rows.path, file.schema_arrow.names)
        # No threads: a sweep's fork server reads too, and theirs would stay in it.
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
        raise KDError(f"{path} is no {name} file, or a damaged one ({str(error).splitlines()[0]})") from error
    except OSError as error:
        raise KDError(_unreadable(path, error)) from error


_READERS: dict[str, Callable[[Rows, str], Iterator[Any]]] = {
    ".csv": _delimited(",", csv.QUOTE_MINIMAL),
    ".tsv": _delimited("\t", csv.QUOTE_NONE),
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
