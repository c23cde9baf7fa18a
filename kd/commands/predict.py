"""``kd predict RUN``: labels and probabilities for texts, a file of any length, or standard input."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
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

CHUNK = 4096
"""Rows in memory at a time; within a chunk rows are batched by length."""

Write = Callable[[list[Row]], None]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="kd predict",
        description="Classify with a finished run's student. Adds the columns 'prediction' and 'probability_<label>'.",
        epilog="Without TEXT and --file, standard input is read, one text a line.",
    )
    parser.add_argument("run", type=Path, help="run directory, or a Hugging Face folder of a classifier")
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument("--file", type=Path, help="CSV, TSV, JSONL or Parquet; every column is kept")
    parser.add_argument("--text", help="column with the texts (default: the run's own data.text)")
    parser.add_argument("--out", type=Path, help="CSV, TSV, JSONL or Parquet (default: CSV on standard output)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--encoding", default="utf-8")
    options = parser.parse_args(arguments)
    if options.texts and options.file:
        raise KDError("expected texts or --file, got both; leave one out")
    if options.batch_size < 1:
        raise KDError(f"--batch-size: expected at least 1, got {options.batch_size}")
    if options.out and options.file and options.out.resolve() == options.file.resolve():
        raise KDError(f"--out would overwrite the input {options.file}; give another name")
    predictor = Predictor.load(options.run)
    column = "text"
    if options.file:
        rows = read_rows(options.file, options.encoding)
        column = options.text or predictor.text_column
        rows.require(column, "--text")
        lines: Iterable[Row] = (row for _, row in rows)
    elif options.texts:
        lines = ({"text": text} for text in options.texts)
    else:
        lines = ({"text": line.rstrip("\r\n")} for line in utf8(sys.stdin))
    empty = 0
    with writer(options.out) as write:
        while chunk := list(islice(lines, CHUNK)):
            empty += add_predictions(predictor, chunk, column, options.batch_size)
            write(chunk)
    if empty:
        print(f"kd predict: {empty} rows without a text have no prediction", file=sys.stderr)
    if options.file and rows.malformed.count:
        first = ", ".join(map(str, rows.malformed.lines))
        print(f"kd predict: {rows.malformed.count} malformed rows left out, lines {first}", file=sys.stderr)
    return 0


def add_predictions(predictor: Predictor, rows: list[Row], column: str, batch_size: int) -> int:
    """Put prediction and probabilities into the rows; returns how many had no text."""
    names = predictor.label_names
    added = ["prediction", *(f"probability_{name}" for name in names)]
    taken = set(added) & set(rows[0])
    if taken:
        raise KDError(f"the input has a column '{sorted(taken)[0]}' already; rename it")
    filled = [row for row in rows if isinstance(row.get(column), str) and row[column].strip()]
    probabilities = predictor.probabilities([row[column] for row in filled], batch_size)
    for row in rows:
        row.update(dict.fromkeys(added))
    for row, values in zip(filled, probabilities, strict=True):
        row["prediction"] = names[int(np.argmax(values))]
        row.update(zip(added[1:], (round(float(value), 6) for value in values), strict=True))
    return len(rows) - len(filled)


def utf8(stream: TextIO) -> Iterator[str]:
    """The lines of a stream, read as UTF-8 whatever the locale says."""
    stream.reconfigure(encoding="utf-8", errors="strict")
    number = 0
    try:
        for number, line in enumerate(stream, start=1):  # noqa: B007  the number is for the message
            yield line
    except UnicodeDecodeError as error:
        raise KDError(
            f"standard input is not UTF-8 after line {number}; convert it first, or use --file with --encoding"
        ) from error


@contextmanager
def writer(path: Path | None) -> Iterator[Write]:
    """Takes rows chunk by chunk; the file appears under its name when all of them are written."""
    if path is None:
        yield _delimited(sys.stdout, ",")
        sys.stdout.flush()
        return
    kind = file_format(path)
    if path.suffix == ".gz":
        raise KDError(f"--out {path}: expected .csv, .tsv, .jsonl or .parquet without .gz")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _WRITERS[kind](temporary) as write:
            yield write
        os.replace(temporary, path)
    except OSError as error:
        raise KDError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _delimited(stream: TextIO, delimiter: str) -> Write:
    table: Any = None

    def write(rows: list[Row]) -> None:
        nonlocal table
        if table is None:
            table = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter, lineterminator="\n")
            table.writeheader()
        table.writerows(rows)

    return write


@contextmanager
def _csv(path: Path, delimiter: str = ",") -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        yield _delimited(stream, delimiter)


@contextmanager
def _jsonl(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as stream:
        yield lambda rows: stream.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    table: Any = None

    def write(rows: list[Row]) -> None:
        nonlocal table
        part = pyarrow.Table.from_pylist(rows, schema=table.schema if table else None)
        table = table or pyarrow.parquet.ParquetWriter(path, part.schema)
        table.write_table(part)

    try:
        yield write
    finally:
        if table:
            table.close()


_WRITERS = {".csv": _csv, ".tsv": lambda path: _csv(path, "\t"), ".jsonl": _jsonl, ".parquet": _parquet}
