"""``kd predict RUN``: predict labels and probabilities for texts, a file of any length, or standard input."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow
import pyarrow.parquet

from kd.data.files import Row, file_format, read_rows
from kd.errors import KDError
from kd.predictor import Predictor
from kd.storage.locks import mark

CHUNK = 4096
"""Rows in memory at the same time; within a chunk rows of similar length share a batch."""

Write = Callable[[list[Row]], None]


def main(arguments: list[str]) -> int:
    """Classify the texts that the arguments name."""
    parser = argparse.ArgumentParser(
        prog="kd predict",
        description="Classify with a finished run's student. Adds the columns 'prediction' and 'probability_<label>'.",
        epilog="Without TEXT and --file, standard input is read, one text per line.",
    )
    parser.add_argument("run", type=Path, help="run directory, or Hugging Face folder of a classifier")
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument("--file", type=Path, help="CSV, TSV, JSONL or Parquet; every column is kept")
    parser.add_argument("--text", help="column with the texts (default: the run's own data.text)")
    parser.add_argument("--out", type=Path, help="CSV, TSV, JSONL or Parquet (default: CSV on standard output)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--encoding", default="utf-8")
    options = parser.parse_intermixed_args(arguments)
    if options.texts and options.file:
        raise KDError("expected texts or --file, got both; leave one out")
    if options.batch_size < 1:
        raise KDError(f"--batch-size: expected at least 1, got {options.batch_size}")
    if options.out and options.file and options.out.resolve() == options.file.resolve():
        raise KDError(f"--out would overwrite the input {options.file}; choose another name")
    predictor = Predictor.load(options.run)
    column, columns = "text", ["text"]
    if options.file:
        rows = read_rows(options.file, options.encoding)
        column, columns = options.text or predictor.text_column, rows.columns
        rows.require(column, "--text")
        lines: Iterator[Row] = (row for _, row in rows)
    elif options.texts:
        lines = ({"text": text} for text in options.texts)
    else:
        lines = ({"text": line.rstrip("\r\n")} for line in utf8(sys.stdin))
    added = ["prediction", *(f"probability_{name}" for name in predictor.label_names)]
    if taken := set(added) & set(columns):
        raise KDError(f"the input already has a column '{min(taken)}'; rename it")
    empty = 0
    with writer(options.out, [*columns, *added]) as write:
        while chunk := list(islice(lines, CHUNK)):
            empty += add_predictions(predictor, chunk, column, added, options.batch_size)
            write(chunk)
    if empty:
        print(f"kd predict: {empty} rows without a text have no prediction", file=sys.stderr)
    if options.file and rows.malformed.count:
        first = ", ".join(map(str, rows.malformed.lines))
        print(f"kd predict: {rows.malformed.count} malformed rows left out, lines {first}", file=sys.stderr)
    return 0


def add_predictions(predictor: Predictor, rows: list[Row], column: str, added: list[str], batch_size: int) -> int:
    """Add prediction and probabilities to the rows, and return the number of rows without a text."""
    filled = [row for row in rows if is_text(row.get(column))]
    probabilities = predictor.probabilities([row[column] for row in filled], batch_size)
    for row in rows:
        row.update(dict.fromkeys(added))
    for row, values in zip(filled, probabilities, strict=True):
        label = predictor.label_names[int(np.argmax(values))]
        row.update(zip(added, (label, *(round(float(value), 6) for value in values)), strict=True))
    return len(rows) - len(filled)


def is_text(value: Any) -> bool:
    """Return whether a cell holds a text; half of a surrogate pair, from a JSON escape, is none."""
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= mark <= "\udfff" for mark in value)


def utf8(stream: TextIO) -> Iterator[str]:
    """Yield the lines of a stream, read as UTF-8 whatever the locale is; a byte order mark is dropped.

    Raises:
        KDError: the input is not UTF-8.
    """
    stream.reconfigure(encoding="utf-8-sig", errors="strict")
    number = 0
    try:
        for number, line in enumerate(stream, start=1):  # noqa: B007  the number is for the message
            yield line
    except UnicodeDecodeError as error:
        raise KDError(
            f"standard input is not UTF-8 after line {number}; convert it first, or use --file with --encoding"
        ) from error


@contextmanager
def writer(path: Path | None, columns: list[str]) -> Iterator[Write]:
    """Yield a function that writes a chunk of rows. The file gets its name when all rows are written.

    Raises:
        KDError: kd does not write this format, or the format cannot hold the rows.
    """
    if path is None:
        yield _delimited(sys.stdout, columns)
        sys.stdout.flush()
        return
    kind = file_format(path)
    if path.suffix == ".gz":
        raise KDError(f"--out {path}: expected .csv, .tsv, .jsonl or .parquet without .gz")
    temporary = path.with_name(f".{path.name}.{mark()}")
    try:
        with _WRITERS[kind](temporary, columns) as write:
            yield write
        os.replace(temporary, path)
    except OSError as error:
        raise KDError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _delimited(stream: TextIO, columns: list[str]) -> Write:
    table = csv.DictWriter(stream, columns, lineterminator="\n")
    table.writeheader()

    def write(rows: list[Row]) -> None:
        _require_columns(rows, columns)
        table.writerows(rows)

    return write


def _require_columns(rows: list[Row], columns: list[str]) -> None:
    for row in rows:
        if more := set(row) - set(columns):
            raise KDError(f"a row has the key '{min(more)}', which the first row lacks; write --out FILE.jsonl instead")


@contextmanager
def _csv(path: Path, columns: list[str]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        yield _delimited(stream, columns)


@contextmanager
def _tsv(path: Path, columns: list[str]) -> Iterator[Write]:
    """Write TSV as kd reads it: without quotes, so no cell may hold a tab or a line end."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write("\t".join(columns) + "\n")

        def write(rows: list[Row]) -> None:
            _require_columns(rows, columns)
            for row in rows:
                cells = ["" if row.get(name) is None else str(row[name]) for name in columns]
                if any(mark in cell for cell in cells for mark in "\t\r\n"):
                    raise KDError("a cell holds a tab or a line end, which TSV cannot; write --out FILE.csv instead")
                stream.write("\t".join(cells) + "\n")

        yield write


@contextmanager
def _jsonl(path: Path, columns: list[str]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as stream:
        yield lambda rows: stream.writelines(json.dumps(row, default=str) + "\n" for row in rows)


@contextmanager
def _parquet(path: Path, columns: list[str]) -> Iterator[Write]:
    """Write Parquet with the column types of the first chunk; a column that is empty there is text.

    A later value of another type is refused.
    """
    table: Any = None
    typed = {"prediction": pyarrow.string()}

    def write(rows: list[Row]) -> None:
        nonlocal table
        _require_columns(rows, columns)
        try:
            arrays = {name: pyarrow.array([row.get(name) for row in rows]) for name in columns}
            if table is None:
                for name, array in arrays.items():
                    known = pyarrow.float64() if name.startswith("probability_") else array.type
                    typed.setdefault(name, pyarrow.string() if pyarrow.types.is_null(known) else known)
                schema = pyarrow.schema([(name, typed[name]) for name in columns])
                table = pyarrow.parquet.ParquetWriter(path, schema)
            table.write_table(pyarrow.table({name: array.cast(typed[name]) for name, array in arrays.items()}))
        except pyarrow.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise KDError(
                f"the type of a column changes within the input ({reason}); write --out FILE.jsonl instead"
            ) from error

    try:
        yield write
        if table is None:
            write([])
    finally:
        if table:
            table.close()


_WRITERS = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".parquet": _parquet}
