"""Read a transfer set that is larger than memory, one slice of its rows at a time, and find its duplicates.

First, the usable texts of each slice and their keys are written to disk. A slice with a file of counts is complete, so
that interrupted reading is resumed after it. Then the keys are compared to find duplicates, one part of their range at
a time. Memory holds one slice, or the keys of one part, and one bit for every row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kd.data.counts import Counts
from kd.data.dialect import Reading
from kd.data.files import read_rows
from kd.data.splits import text_keys, unusable
from kd.errors import KDError
from kd.storage import records
from kd.storage.cache_records import TextSlice
from kd.storage.checksum import digest, file_sha256
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
        reading: how text files are read.
        held_out: sides of the validation and test texts; see `kd.data.splits.text_keys`.
        known: keys of the texts in the training split.
        deduplicate: whether to use only the first row of each text.
        slice_rows: number of rows in a slice.
    """

    files: Sequence[Path]
    fingerprint: str
    column: str
    reading: Reading
    held_out: frozenset[bytes]
    known: frozenset[bytes]
    deduplicate: bool
    slice_rows: int

    @property
    def key(self) -> str:
        """The name of the transfer set: a hash of everything that affects its content."""
        sets = [hashlib.sha256(b"".join(sorted(keys))).hexdigest() for keys in (self.held_out, self.known)]
        how = self.reading
        parts = [FORMAT, self.fingerprint, self.column, how.encoding, *sets, self.deduplicate, self.slice_rows]
        given = {"delimiter": how.delimiter, "quoting": how.quoting, "header": how.header}
        parts += [given] if any(value is not None for value in given.values()) else []  # others keep their name
        return digest(parts)[:20]

    def fate(self, key: bytes, side: bytes) -> str | None:
        """Return why a text with these keys is not used, as one of `kd.data.splits.FATES`; None if it is used."""
        if side in self.held_out:
            return "removed_from_train"
        return "duplicates" if self.deduplicate and key in self.known else None

    def places(self, files: Sequence[int], lines: Sequence[int]) -> list[str]:
        """Return "file:line" of each row."""
        return [f"{self.files[file].name}:{line}" for file, line in zip(files, lines, strict=True)]


def _read(source: Source, left_out: Counts) -> Iterator[tuple[int, int, Any]]:
    """Yield ``(number of the file, line, text)`` of all files; the rows that cannot be read are counted."""
    for number, path in enumerate(source.files):
        rows = read_rows(path, source.reading).only(source.column)
        rows.require(source.column, "data.text")
        for line, row in rows:
            yield number, line, row.get(source.column)
        rows.count_in(left_out)


def read_slices(folder: Path, source: Source) -> tuple[list[Path], Counts]:
    """Read all files in slices. Slices that are already complete in the folder are skipped.

    Returns:
        the Arrow files of the slices with usable rows, and the counts of all rows.
    """
    counts, left_out, number, read = Counts(), Counts(), 0, source.slice_rows
    rows = _read(source, left_out)
    while read == source.slice_rows:
        place = folder / f"{number:06}"
        number += 1
        counted = place.with_suffix(".json")
        found = _counts_of(counted)
        if found is not None:
            read = sum(1 for _ in islice(rows, source.slice_rows))
        else:
            found = _write_slice(place, islice(rows, source.slice_rows), source)
            files = {file.name: file_sha256(file) for file in _files_of(place)}
            records.write(counted, {"counts": asdict(found), "files": files})
            read = found.read
        counts.merge(found)
    counts.merge(left_out)
    return sorted(folder.glob("*.arrow")), counts


def _files_of(place: Path) -> list[Path]:
    return sorted(file for file in place.parent.glob(f"{place.name}.*") if file.suffix in (".npy", ".arrow"))


def _counts_of(counted: Path) -> Counts | None:
    """Return the counts of a slice; None if it is not complete, or one of its files was changed."""
    try:
        content = records.read(counted, TextSlice, sealed=True)
        found = {file.name: file_sha256(file) for file in _files_of(counted.with_suffix(""))}
        return Counts(**content["counts"]) if found == content["files"] else None
    except (KDError, TypeError):
        return None


def _write_slice(place: Path, rows: Iterable[tuple[int, int, Any]], source: Source) -> Counts:
    """Write the usable rows of a slice if there are any, and count all of them."""
    counts, keys = Counts(), bytearray()
    columns: tuple[list, list, list] = ([], [], [])
    for file, line, text in rows:
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
        key, place, row = map(np.concatenate, (keys, numbers, rows))
        order = np.lexsort((row, place, key[:, 1], key[:, 0]))
        same = order[1:][(key[order][1:] == key[order][:-1]).all(axis=1)]
        np.bitwise_or.at(bits, (place[same], row[same] >> 3), (1 << (row[same] & 7)).astype(np.uint8))
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
