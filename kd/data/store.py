"""Collect rows in flat arrays, and make a data set of them."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

FLUSH_ROWS, FLUSH_CHARACTERS = 4096, 1 << 24


class Store:
    """Collects rows one by one. The texts are kept as Arrow chunks, because a Python object for each needs more memory.

    ``side`` is a row's 16-byte key (`kd.data.splits.text_keys`). Its first half chooses the split; its second half
    chooses the rows if their number is limited.
    """

    def __init__(self) -> None:
        self._chunks: list[pa.Array] = []
        self._texts: list[str] = []
        self._characters = 0
        self._labels, self._lines, self._files = array("q"), array("q"), array("i")
        self._sides = bytearray()

    def add(self, text: str, label: int, line: int, file: int, side: bytes) -> None:
        """Append a row; ``file`` is the number of its file."""
        self._texts.append(text)
        self._labels.append(label)
        self._lines.append(line)
        self._files.append(file)
        self._sides += side
        self._characters += len(text)
        # An Arrow string array holds at most 2 GiB, so a chunk of long texts must have fewer rows.
        if len(self._texts) >= FLUSH_ROWS or self._characters >= FLUSH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        self._chunks.append(pa.array(self._texts, pa.string()))
        self._texts, self._characters = [], 0

    def table(self) -> Table:
        """Return all rows so far."""
        self._flush()
        return Table(
            texts=pa.chunked_array(self._chunks, pa.string()),
            labels=np.array(self._labels, dtype=np.int64),
            lines=np.array(self._lines, dtype=np.int64),
            files=np.array(self._files, dtype=np.int64),
            sides=np.frombuffer(bytes(self._sides), dtype=">u8").reshape(-1, 2).astype(np.uint64),
        )


@dataclass
class Table:
    """Rows in columns of equal length. ``sides`` ``[rows, 2]`` holds the two halves of each key."""

    texts: pa.ChunkedArray
    labels: np.ndarray
    lines: np.ndarray
    files: np.ndarray
    sides: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def _numbers(self) -> tuple[np.ndarray, ...]:
        return self.labels, self.lines, self.files, self.sides

    def where(self, mask: np.ndarray) -> Table:
        """Return the rows where a boolean mask is true."""
        return Table(self.texts.filter(pa.array(mask)), *(column[mask] for column in self._numbers))

    def side(self, row: int) -> bytes:
        """Return the key of a row, as it was added."""
        return self.sides[row].astype(">u8").tobytes()

    def followed_by(self, other: Table) -> Table:
        """Return these rows and then the other's."""
        texts = pa.chunked_array([*self.texts.chunks, *other.texts.chunks], pa.string())
        return Table(texts, *map(np.concatenate, zip(self._numbers, other._numbers, strict=True)))

    def dataset(self) -> tuple[Dataset, str]:
        """Return the rows as a data set, and the SHA-256 of their texts and labels."""
        checksum = hashlib.sha256(self.labels.astype("<i8").tobytes())
        for chunk in self.texts.chunks:
            checksum.update("\0".join([*chunk.to_pylist(), ""]).encode())
        table = pa.table({"text": self.texts, "label": self.labels, "line": self.lines})
        # Without a given fingerprint, datasets would pickle and hash the whole table.
        return Dataset(InMemoryTable(table), fingerprint=checksum.hexdigest()[:32]), checksum.hexdigest()
