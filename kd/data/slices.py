"""Read a transfer set that is larger than memory, one slice of its rows at a time, and find its duplicates.

First, the usable texts of each slice and their keys are written to disk. A slice with a file of counts is complete, so
that interrupted reading is resumed after it. Then the keys are compared to find duplicates, one part of their range at
a time. Memory holds one slice, or the keys of one part, and one bit for every row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kd.data.files import LINES_KEPT, Rows, read_rows
from kd.data.splits import text_keys, unusable
from kd.storage.checksum import digest
from kd.storage.files import write_bytes

FORMAT = 1
KEYS_AT_ONCE = 1_000_000
"""Keys that are compared with each other in memory."""
COLUMNS = pa.schema([("text", pa.large_string()), ("file", pa.int32()), ("line", pa.int64())])


@dataclass(frozen=True)
class Source:
    """The files of a transfer set, and which of their texts to use.

    Args:
        files: in the order in which they are read.
        fingerprint: hash of their content.
        column: name of the column with the texts.
        encoding: of text files.
        held_out: sides of the validation and test texts; see `kd.data.splits.text_keys`.
        known: keys of the texts in the training split.
        deduplicate: whether to use only the first row of each text.
        slice_rows: number of rows in a slice.
    """

    files: Sequence[Path]
    fingerprint: str
    column: str
    encoding: str
    held_out: frozenset[bytes]
    known: frozenset[bytes]
    deduplicate: bool
    slice_rows: int

    @property
    def key(self) -> str:
        """The name of the transfer set: a hash of everything that affects its content."""
        sets = [hashlib.sha256(b"".join(sorted(keys))).hexdigest() for keys in (self.held_out, self.known)]
        parts = [FORMAT, self.fingerprint, self.column, self.encoding, *sets, self.deduplicate, self.slice_rows]
        return digest(parts)[:20]

    def fate(self, key: bytes, side: bytes) -> str | None:
        """Return why a text with these keys is not used, as one of `kd.data.splits.FATES`; None if it is used."""
        if side in self.held_out:
            return "removed_from_train"
        return "duplicates" if self.deduplicate and key in self.known else None

    def places(self, files: Sequence[int], lines: Sequence[int]) -> list[str]:
        """Return "file:line" of each row."""
        return [f"{self.files[file].name}:{line}" for file, line in zip(files, lines, strict=True)]


@dataclass
class Counts:
    """The number of rows that were read and, for each of `kd.data.splits.FATES`, left out; with their first lines."""

    read: int = 0
    fates: dict[str, int] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)

    def add(self, fate: str, count: int, lines: Sequence[str]) -> None:
        """Count rows that were left out. ``lines`` may name only the first of them."""
        self.fates[fate] = self.fates.get(fate, 0) + count
        known = self.lines.setdefault(fate, [])
        known += lines[: LINES_KEPT - len(known)]

    def merge(self, other: Counts) -> None:
        """Add the counts of later rows."""
        self.read += other.read
        for fate, count in other.fates.items():
            self.add(fate, count, other.lines[fate])


class Reader:
    """Reads the rows of all files. ``opened`` lists the files so far."""

    def __init__(self, source: Source):
        self.opened: list[Rows] = []
        self._rows = self._all(source)

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        """Yield ``(number of the file, line, text)``."""
        return self._rows

    def _all(self, source: Source) -> Iterator[tuple[int, int, Any]]:
        for number, path in enumerate(source.files):
            rows = read_rows(path, source.encoding).only(source.column)
            rows.require(source.column, "data.text")
            self.opened.append(rows)
            for line, row in rows:
                yield number, line, row.get(source.column)

    def skip(self, rows: int) -> int:
        """Skip this number of rows, or the rest of them, and return how many were skipped."""
        return sum(1 for _ in zip(range(rows), self._rows, strict=False))


def read_slices(folder: Path, source: Source) -> tuple[list[Path], Counts]:
    """Read all files in slices. Slices that are already complete in the folder are skipped.

    Returns:
        the Arrow files of the slices with usable rows, and the counts of all rows.
    """
    counts, reader, number, read = Counts(), Reader(source), 0, source.slice_rows
    while read == source.slice_rows:
        place = folder / f"{number:06}"
        number += 1
        counted = place.with_suffix(".json")
        if counted.exists():
            found = Counts(**json.loads(counted.read_text()))
            read = reader.skip(source.slice_rows)
        else:
            found = _write_slice(place, reader, source)
            write_bytes(counted, json.dumps(asdict(found)).encode())
            read = found.read
        counts.merge(found)
    for rows in reader.opened:
        for fate, tally in (("malformed", rows.malformed), ("empty", rows.blank)):
            if tally.count:
                counts.read += tally.count
                counts.add(fate, tally.count, [f"{rows.path.name}:{line}" for line in tally.lines])
    return sorted(folder.glob("*.arrow")), counts


def _write_slice(place: Path, reader: Reader, source: Source) -> Counts:
    """Read one slice, write its usable rows if there are any, and count all of them."""
    counts, keys = Counts(), bytearray()
    columns: tuple[list, list, list] = ([], [], [])
    for file, line, text in reader:
        counts.read += 1
        fate = unusable(text)
        if fate is None:
            key, side = text_keys(text)
            fate = source.fate(key, side)
        if fate is None:
            keys += key
            for column, value in zip(columns, (text, file, line), strict=True):
                column.append(value)
        else:
            counts.add(fate, 1, source.places([file], [line]))
        if counts.read == source.slice_rows:
            break
    if keys:
        found = np.frombuffer(bytes(keys), dtype="<u8").reshape(-1, 2)
        order = np.argsort(found[:, 0], kind="stable")
        np.save(place.with_suffix(".keys.npy"), found[order])
        np.save(place.with_suffix(".rows.npy"), order.astype(np.int32))
        write_table(place.with_suffix(".arrow"), pa.table(list(columns), schema=COLUMNS))
    return counts


def repeated(slices: Sequence[Path], slice_rows: int) -> np.ndarray:
    """Find the rows whose key an earlier row has, as bits ``[slices, ceil(slice_rows / 8)]``."""
    bits = np.zeros((len(slices), -(-slice_rows // 8)), dtype=np.uint8)
    total = sum(len(_array(path, "rows")) for path in slices)
    parts = -(-total // KEYS_AT_ONCE)  # hashes are uniform, so equal parts of their range hold about as many keys
    for part in range(parts):
        keys, numbers, rows = [], [], []
        for number, path in enumerate(slices):
            found = _array(path, "keys")
            start, stop = (_border(found[:, 0], side, parts) for side in (part, part + 1))
            keys.append(np.array(found[start:stop]))
            rows.append(np.array(_array(path, "rows")[start:stop]))
            numbers.append(np.full(stop - start, number))
        key, number, row = map(np.concatenate, (keys, numbers, rows))
        order = np.lexsort((row, number, key[:, 1], key[:, 0]))
        same = order[1:][(key[order][1:] == key[order][:-1]).all(axis=1)]
        np.bitwise_or.at(bits, (number[same], row[same] >> 3), (1 << (row[same] & 7)).astype(np.uint8))
    return bits


def _border(sorted_keys: np.ndarray, part: int, parts: int) -> int:
    """Return the index of the first key in a part of the range."""
    return len(sorted_keys) if part == parts else int(np.searchsorted(sorted_keys, np.uint64(part * 2**64 // parts)))


def _array(path: Path, name: str) -> np.ndarray:
    return np.load(path.with_suffix(f".{name}.npy"), mmap_mode="r", allow_pickle=False)


def write_table(path: Path, table: pa.Table) -> bytes:
    """Write an Arrow file in one step, and return its content."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue().to_pybytes()
    write_bytes(path, content)
    return content
