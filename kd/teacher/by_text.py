"""A teacher's logits by text, on disk: no text is labelled twice, whatever set of texts it comes in.

``<folder>/<digest>.texts/`` belongs to one teacher, tokenizer and length, which are named in ``store.json``. Every
other file is a shard of rows ``(hash of the text, seconds, logits)``. A shard's name is the SHA-256 of its content: a
damaged one is noticed and removed, and its texts are labelled again. Shards are only added, under a lock, each in one
step; many small ones are merged. The first value of a text stays, so that all runs read the same one.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from filelock import SoftFileLease

from kd.errors import KDError
from kd.storage import records
from kd.storage.checksum import file_sha256
from kd.storage.locks import lock, mark
from kd.teacher.cache import CacheKey

log = logging.getLogger(__name__)

FORMAT = 1
EVERY = "every text"
"""Stands in a `CacheKey` where a column has the hash of its texts."""
HASH_BYTES = 16
HASH = f"S{HASH_BYTES}"
"""The dtype of a text's hash."""
HASHED = "text_sha256"
"""The column of a file of answers with the hash of each text in hexadecimal, where the texts are left out."""
SMALL, MOST_SMALL = 8 << 20, 16
"""Bytes of a small shard, and how many of them there may be before they are merged."""


def hashes(texts: Iterable[str]) -> np.ndarray:
    """Return the first 16 bytes of the SHA-256 of each text, ``[N]``."""
    found = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:HASH_BYTES] for text in texts)
    return np.array(list(found), dtype=HASH)


class About(records.Record):
    """``store.json`` of a store."""

    key: dict[str, Any]
    teacher: str


@dataclass(frozen=True)
class TextStore:
    """The logits that one teacher has given, by text.

    Args:
        folder: contains all caches.
        key: of a column of logits; the hash of its texts does not count.
        classes: number of logits of a text.
        teacher: its name, for ``kd cache ls``.
    """

    folder: Path
    key: CacheKey
    classes: int
    teacher: str

    @property
    def place(self) -> Path:
        return self.folder / f"{replace(self.key, texts=EVERY).digest}.texts"

    def find(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look up texts by their hashes ``[N]``.

        Returns:
            the logits ``[N, C]`` float32, NaN for a text that is not stored, and the seconds ``[N]`` that each took.
        """
        with self._locked():
            return self._find(texts)

    def add(self, texts: np.ndarray, logits: np.ndarray, seconds: np.ndarray) -> None:
        """Store the logits of texts. A text that is there, or whose logits are not finite, is left out.

        Args:
            texts: hashes ``[N]``, each once.
            logits: ``[N, C]``.
            seconds: ``[N]``.
        """
        with self._locked():
            new = np.isnan(self._find(texts)[0]).any(axis=1) & np.isfinite(logits).all(axis=1)
            rows = np.zeros(int(new.sum()), self._dtype)
            rows["text"], rows["seconds"], rows["logits"] = texts[new], seconds[new], logits[new]
            if not len(rows):
                return
            self._write(rows)
            small = [path for path in shards(self.place) if path.stat().st_size < SMALL]
            if len(small) > MOST_SMALL:
                parts = [part for path in small if (part := self._read(path)) is not None]
                merged = self._write(np.concatenate(parts))
                for path in small:
                    if path != merged:
                        path.unlink(missing_ok=True)

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype([("text", HASH), ("seconds", "<f4"), ("logits", "<f4", (self.classes,))])

    def _locked(self) -> SoftFileLease:
        self.place.mkdir(parents=True, exist_ok=True)
        return lock(self.place)

    def _find(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted, back = np.unique(texts, return_inverse=True)
        logits, seconds = np.full((len(wanted), self.classes), np.nan, np.float32), np.zeros(len(wanted))
        for path in shards(self.place):
            if (rows := self._read(path)) is None:
                continue
            at = positions(rows["text"], wanted)  # a table of the wanted ones is smaller than one of all
            hit = at >= 0
            logits[at[hit]], seconds[at[hit]] = rows["logits"][hit], rows["seconds"][hit]
        return logits[back], seconds[back]

    def _read(self, path: Path) -> np.ndarray | None:
        """Return the rows of a shard, memory-mapped; remove it if it is damaged. A process computes its hash once."""
        if file_sha256(path) == path.stem:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
            if rows.dtype == self._dtype:
                return rows
        log.warning("teacher cache: the shard %s is damaged; it is removed, and its texts are labelled again", path)
        path.unlink()
        return None

    def _write(self, rows: np.ndarray) -> Path:
        """Write a shard in one step. The lock is held, so that any temporary file is of a killed process."""
        for leftover in self.place.glob(".*"):
            leftover.unlink()
        key = asdict(replace(self.key, texts=EVERY))
        try:
            about(self.place)
        except KDError:  # missing or damaged
            records.write(self.place / "store.json", {"format": FORMAT, "key": key, "teacher": self.teacher})
        stream = io.BytesIO()
        np.save(stream, rows)
        content = stream.getvalue()
        path = self.place / f"{hashlib.sha256(content).hexdigest()}.npy"
        temporary = self.place / f".{mark()}"
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path


def positions(wanted: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Return where each wanted hash ``[N]`` is among the stored ones ``[M]``; -1 where it is not. In linear time."""
    return pa.compute.index_in(_arrow(wanted), _arrow(stored)).fill_null(-1).to_numpy()


def _arrow(texts: np.ndarray) -> pa.Array:
    """Return hashes ``[N]`` as an Arrow array."""
    packed = np.ascontiguousarray(texts)
    return pa.Array.from_buffers(pa.binary(HASH_BYTES), len(packed), [None, pa.py_buffer(packed)])


def shards(place: Path) -> list[Path]:
    """Return the shards of a store, in an order of their own."""
    return sorted(path for path in place.glob("*.npy") if not path.name.startswith("."))


def stores(folder: Path) -> list[Path]:
    """Return the stores in a folder of caches."""
    return sorted(path.parent for path in Path(folder).glob("*.texts/store.json"))


def is_store(place: Path) -> bool:
    """Return whether a cache holds logits by text; the others are columns of `kd.teacher.cache`."""
    return place.suffix == ".texts"


def about(place: Path) -> dict[str, Any]:
    """Return what ``store.json`` says: the ``teacher`` and the ``key``."""
    return records.read(place / "store.json", About)


def damage(place: Path) -> str | None:
    """Return what is wrong with a store, as a phrase; None if every checksum is right."""
    try:
        about(place)
    except KDError as error:
        return f"store.json cannot be read: {error}"
    damaged = next((path for path in shards(place) if file_sha256(path) != path.stem), None)
    return f"{damaged.name} does not match its checksum" if damaged else None


def rows_of(place: Path) -> np.ndarray:
    """Return the rows of an intact store: the fields ``text``, ``seconds`` and ``logits``."""
    return np.concatenate([np.load(path, allow_pickle=False) for path in shards(place)])


def size(place: Path) -> tuple[int, float]:
    """Return the number of texts in an intact store, and the seconds that labelling them took."""
    found = [np.load(path, mmap_mode="r", allow_pickle=False) for path in shards(place)]
    return sum(map(len, found)), float(sum(rows["seconds"].sum(dtype=float) for rows in found))
