"""Collect rows in an Arrow table, and make a data set of it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

FLUSH_ROWS, FLUSH_CHARACTERS = 4096, 1 << 24
NUMBERS = {"label": pa.int64(), "line": pa.int64(), "file": pa.int32(), "first": pa.uint64(), "second": pa.uint64()}
COLUMNS = pa.schema({"text": pa.string(), **NUMBERS})
"""``file`` is the number of a file. ``first`` and ``second`` are the halves of a side (`kd.data.splits.text_keys`)."""


class Store:
    """Collects rows one by one. They are kept as Arrow batches, because a Python object for each needs more memory."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[tuple[str, int, int, int, int, int]] = []
        self._characters = 0

    def add(self, text: str, label: int, line: int, file: int, side: bytes) -> None:
        """Append a row; ``side`` has 16 bytes."""
        self._rows.append((text, label, line, file, *struct.unpack(">2Q", side)))
        self._characters += len(text)
        # An Arrow string array holds at most 2 GiB, so a batch of long texts must have fewer rows.
        if len(self._rows) >= FLUSH_ROWS or self._characters >= FLUSH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        self._batches += pa.table(list(zip(*self._rows, strict=True)), COLUMNS).to_batches() if self._rows else []
        self._rows, self._characters = [], 0

    def table(self) -> pa.Table:
        """Return all rows so far, with the columns `COLUMNS`."""
        self._flush()
        return pa.Table.from_batches(self._batches, COLUMNS)


def rows_of(table: pa.Table) -> Iterator[tuple[str, int, int, int, bytes]]:
    """Yield the rows as they were added: text, label, line, file and side."""
    for batch in table.to_batches():
        for *row, first, second in zip(*map(pa.Array.to_pylist, batch.columns), strict=True):
            yield *row, struct.pack(">2Q", first, second)


def dataset_of(table: pa.Table, labels: np.ndarray) -> tuple[Dataset, str]:
    """Return the rows with these labels as a data set, and the SHA-256 of their texts and labels."""
    checksum = hashlib.sha256(labels.astype("<i8").tobytes())
    for chunk in table["text"].chunks:
        checksum.update("\0".join([*chunk.to_pylist(), ""]).encode())
    columns = pa.table({"text": table["text"], "label": labels, "line": table["line"]})
    # Without a given fingerprint, datasets would pickle and hash the whole table.
    return Dataset(InMemoryTable(columns), fingerprint=checksum.hexdigest()[:32]), checksum.hexdigest()
