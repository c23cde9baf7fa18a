"""The labelled rows on which a classifier is measured: a split of its run, or a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kd.config.check import rows_of_run
from kd.contract import IGNORED_LABEL
from kd.data.batching import labels_of
from kd.data.dialect import Reading
from kd.data.files import read_rows
from kd.data.labels import LabelReader
from kd.data.splits import unusable
from kd.errors import KDError
from kd.run.directory import RunDirectory

SPLITS = ("validation", "test")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """Labelled rows.

    Args:
        name: of the split or of the file.
        texts, labels: ``[N]``.
        columns: other columns of the file, by name.
        is_split: whether they are a split of the run.
    """

    name: str
    texts: list[str]
    labels: np.ndarray
    columns: dict[str, list[Any]] = field(default_factory=dict)
    is_split: bool = False


def of_split(run: RunDirectory, name: str) -> Rows:
    """Return a split of a run. A reading of the test rows is recorded, because ``kd report`` counts them."""
    split = getattr(rows_of_run(run, name), name)
    if name == "test":
        run.record_test_read(command="kd evaluate")
    return Rows(name, list(split["text"]), labels_of(split), is_split=True)


def of_file(
    path: Path, text: str, label: str, names: Sequence[str], encoding: str, columns: dict[str, str] | None = None
) -> Rows:
    """Return the rows of a file that have a text and a label.

    Args:
        path: of the file.
        text, label: its columns.
        names: of the labels.
        encoding: of a text file.
        columns: further columns, and the option that asks for each.

    Raises:
        KDError: a column is missing, a label is not one of the names, or no row has both.
    """
    rows = read_rows(path, Reading(encoding, wanted=(text, label)))
    for column, option in {text: "--text", label: "--label", **(columns or {})}.items():
        rows.require(column, option)
    reader = LabelReader(names)
    texts, codes, left_out = [], [], []
    others: dict[str, list[Any]] = {column: [] for column in columns or ()}
    for line, row in rows:
        code = reader.read(row.get(label), path.name, line)
        if unusable(row.get(text)) or code == IGNORED_LABEL:
            left_out.append(line)
            continue
        texts.append(row[text])
        codes.append(code)
        for column, values in others.items():
            values.append(row.get(column))
    left_out = rows.malformed.lines + left_out
    if left_out:
        count, lines = rows.malformed.count + len(left_out) - len(rows.malformed.lines), left_out[:20]
        shown = ", ".join(map(str, lines))  # not logged: after a training in this process, logs go to standard output
        print(f"kd evaluate: {count} rows left out (no text, no label or malformed), lines {shown}", file=sys.stderr)
    if not texts:
        raise KDError(f"expected rows with a text and a label in {path}, found none; check --text and --label")
    _, ids = reader.finish()
    for warning in reader.warnings:
        log.warning("%s", warning)
    return Rows(path.name, texts, ids[codes], others)
