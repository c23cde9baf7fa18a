"""``kd predict RUN``: labels and probabilities for texts, a file of any length, or standard input."""

from __future__ import annotations

import argparse
import codecs
import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from select import select
from typing import Any, TextIO

import numpy as np

from kd.classifier import Classifier, Staged, load
from kd.data.files import Row, file_format, read_rows
from kd.errors import KDError
from kd.storage.locks import mark

CHUNK = 4096
"""Rows in memory at a time; within a chunk, rows of similar length are in one batch."""
PAUSE = 0.05
"""Seconds after which standard input is taken to wait for answers."""
BLOCK = 1 << 16
"""Bytes that are read from standard input at a time."""

Write = Callable[[list[Row]], None]


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="kd predict",
        description="Classify with a finished run's student. Adds the columns 'prediction' and 'probability_<label>'.",
        epilog="Without TEXT and --file, standard input is read, one text a line.",
    )
    parser.add_argument("run", type=Path, help="run directory, or a Hugging Face folder of a classifier")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text to classify")
    parser.add_argument("--file", type=Path, help="CSV, TSV, JSONL, Parquet or Arrow; every column is kept")
    parser.add_argument("--text", help="column with the texts (default: the run's own data.text)")
    parser.add_argument("--out", type=Path, help="CSV, TSV, JSONL or Parquet (default: CSV on standard output)")
    parser.add_argument("--batch-size", type=int, default=64, help="texts at a time (default: 64)")
    parser.add_argument("--encoding", default="utf-8", help="of --file (default: utf-8)")
    parser.add_argument("--cascade", action="store_true", help="ask the teacher where kd cascade says so")
    parser.add_argument(
        "--fallback", choices=["student"], help="with --cascade: answers where the teacher cannot (default: an error)"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.texts and options.file:
        raise KDError("expected texts or --file, got both; leave one out")
    if options.fallback and not options.cascade:
        raise KDError("--fallback: expected --cascade beside it; add it, or leave this out")
    if options.batch_size < 1:
        raise KDError(f"--batch-size: expected at least 1, got {options.batch_size}")
    if options.out and options.file and options.out.resolve() == options.file.resolve():
        raise KDError(f"--out would overwrite the input {options.file}; give another name")
    return options


def main(arguments: list[str]) -> int:
    """Classify the texts that the arguments name."""
    options = parsed(arguments)
    predictor = cascade(options.run, bool(options.fallback)) if options.cascade else load(options.run)
    column, columns = "text", ["text"]
    if options.file:
        rows = read_rows(options.file, options.encoding)
        column, columns = options.text or predictor.text_column, rows.columns
        rows.require(column, "--text")
        chunks = in_chunks(row for _, row in rows)
    elif options.texts:
        chunks = in_chunks({"text": text} for text in options.texts)
    else:
        chunks = ([{"text": line} for line in lines] for lines in lines_of(sys.stdin))
    added = ["prediction", *(f"probability_{name}" for name in predictor.label_names)]
    added += ["answered_by"] * options.cascade
    if taken := set(added) & set(columns):
        raise KDError(f"the input has a column '{min(taken)}' already; rename it")
    empty = 0
    with writer(options.out, [*columns, *added]) as write:
        for chunk in chunks:
            empty += add_predictions(predictor, chunk, column, added, options.batch_size)
            write(chunk)
    if empty:
        print(f"kd predict: {empty} rows without a text have no prediction", file=sys.stderr)
    if options.file and rows.malformed.count:
        first = ", ".join(map(str, rows.malformed.lines))
        print(f"kd predict: {rows.malformed.count} malformed rows left out, lines {first}", file=sys.stderr)
    return 0


def cascade(path: Path, fallback: bool) -> Classifier:
    """Load the cascade of a run; its packages are not needed for an export."""
    from kd.cascade.cascade import Cascade

    return Cascade.load(path, fallback)


def add_predictions(predictor: Classifier, rows: list[Row], column: str, added: list[str], batch_size: int) -> int:
    """Put prediction, probabilities and who answered into the rows; return how many rows have no text."""
    filled = [row for row in rows if is_text(row.get(column))]
    texts, by = [row[column] for row in filled], list[list[str]]()
    if isinstance(predictor, Staged):
        probabilities, names = predictor.answers(texts, batch_size)
        by = [[name] for name in names]
    else:
        probabilities = predictor.probabilities(texts, batch_size)
    for row in rows:
        row.update(dict.fromkeys(added))
    for row, values, who in zip(filled, probabilities, by or [[]] * len(filled), strict=True):
        label = predictor.label_names[int(np.argmax(values))]
        row.update(zip(added, (label, *(round(float(value), 6) for value in values), *who), strict=True))
    return len(rows) - len(filled)


def is_text(value: Any) -> bool:
    """Return whether a cell holds a text. Half of a surrogate pair, which JSON can write, makes it invalid."""
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= mark <= "\udfff" for mark in value)


def in_chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Split rows into lists of at most `CHUNK`."""
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def lines_of(stream: TextIO | None) -> Iterator[list[str]]:
    """Read the lines of a stream as UTF-8, whatever the locale is. A byte order mark is left out.

    Yields:
        at most `CHUNK` lines, or those that have come when the stream pauses: a person who types, or a program that
        waits for the answer, gets it for each line.

    Raises:
        KDError: the stream is closed, or is not UTF-8.
    """
    if stream is None:
        raise KDError("expected texts, --file or standard input, found that standard input is closed")
    decoder, source, number = codecs.getincrementaldecoder("utf-8-sig")(), stream.fileno(), 0
    lines, begun, carried = list[str](), list[str](), ""
    try:
        while block := os.read(source, BLOCK):
            text = carried + decoder.decode(block)
            carried = "\r" if text.endswith("\r") else ""  # the other half of a line end may follow
            first, *others = re.split("\r\n|\n|\r", text.removesuffix("\r"))
            begun.append(first)
            if others:
                lines += ["".join(begun), *others[:-1]]
                begun = [others[-1]]
            while len(lines) >= CHUNK or (lines and not select([source], [], [], PAUSE)[0]):
                yield lines[:CHUNK]
                number, lines = number + len(lines[:CHUNK]), lines[CHUNK:]
        begun.append(decoder.decode(b"", final=True))
    except UnicodeDecodeError as error:
        before = number + len(lines) + error.object[: error.start].count(b"\n")
        raise KDError(
            f"standard input is not UTF-8 after line {before}; convert it first, or use --file with --encoding"
        ) from error
    if carried or any(begun):
        lines.append("".join(begun))
    if lines:
        yield lines


@contextmanager
def writer(path: Path | None, columns: list[str]) -> Iterator[Write]:
    """Return a function that writes rows, chunk by chunk. The file gets its name when all of them are written.

    Raises:
        KDError: kd does not write the format, or the format cannot hold the rows.
    """
    if path is None:
        yield _delimited(sys.stdout, columns, ",")
        sys.stdout.flush()
        return
    kind = file_format(path)
    if path.suffix.lower() != kind or kind not in (".csv", ".tsv", ".jsonl", ".parquet"):
        raise KDError(f"--out {path}: expected .csv, .tsv, .jsonl or .parquet without .gz")
    temporary = path.with_name(f".{path.name}.{mark()}")
    try:
        if kind == ".parquet":
            with _parquet(temporary, columns) as write:
                yield write
        else:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                yield _jsonl(stream) if kind == ".jsonl" else _delimited(stream, columns, "\t,"[kind == ".csv"])
        os.replace(temporary, path)
    except OSError as error:
        raise KDError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _delimited(stream: TextIO, columns: list[str], delimiter: str) -> Write:
    """Write CSV, or TSV as kd reads it: without quotes, so that no cell may hold a tab or a line end."""
    tsv: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
    table = csv.DictWriter(stream, columns, lineterminator="\n", **(tsv if delimiter == "\t" else {}))

    def write(rows: list[Row]) -> None:
        _require_columns(rows, columns)
        if delimiter == "\t" and any(mark in str(row[name]) for row in rows for name in row for mark in "\t\r\n"):
            raise KDError("a cell holds a tab or a line end, which TSV cannot; write --out FILE.csv instead")
        table.writerows(rows)
        stream.flush()  # whoever reads it may wait for this answer

    write([dict(zip(columns, columns, strict=True))])
    return write


def _require_columns(rows: list[Row], columns: list[str]) -> None:
    for row in rows:
        if more := set(row) - set(columns):
            raise KDError(f"a row has the key '{min(more)}', which the first row lacks; write --out FILE.jsonl instead")


def _jsonl(stream: TextIO) -> Write:
    return lambda rows: stream.writelines(json.dumps(row, default=str) + "\n" for row in rows)


@contextmanager
def _parquet(path: Path, columns: list[str]) -> Iterator[Write]:
    """Write Parquet. The first chunk decides the type of each column: text, if the column is empty there."""
    import pyarrow.parquet

    table: Any = None

    def write(rows: list[Row]) -> None:
        nonlocal table
        _require_columns(rows, columns)
        try:
            arrays = [pyarrow.array([row.get(name) for row in rows]) for name in columns]
            if table is None:
                types = [_type(name, array.type) for name, array in zip(columns, arrays, strict=True)]
                table = pyarrow.parquet.ParquetWriter(path, pyarrow.schema(zip(columns, types, strict=True)))
            typed = [array.cast(kind) for array, kind in zip(arrays, table.schema.types, strict=True)]
            table.write_table(pyarrow.table(typed, schema=table.schema))
        except pyarrow.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise KDError(f"a column changes its type ({reason}); write --out FILE.jsonl instead") from error

    try:
        yield write
        if table is None:
            write([])
    finally:
        if table:
            table.close()


def _type(column: str, found: Any) -> Any:
    """Return the Arrow type in which a column is written, for the type that its first chunk has."""
    import pyarrow

    if column.startswith("probability_"):
        return pyarrow.float64()
    return pyarrow.string() if column == "prediction" or pyarrow.types.is_null(found) else found
