"""Teacher outputs on disk: computed once, read by every run that asks for the same thing.

``<folder>/<digest>/`` holds one column: ``values.npy`` (and ``offsets.npy`` where a row holds a vector for each
of its tokens) and ``meta.json``. A cache is written beside its place and renamed into it, behind a lock, so that
one process builds while the others wait. Every file's SHA-256 stands in ``meta.json`` and is checked before the
cache is used.

What takes long is built in pieces (`kd.storage.pieces`), each a cache of its own: several processes take them in
turn, and those that are whole survive whatever ends a process. `join` makes one cache of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd.errors import KDError
from kd.storage.locks import lock, mark

log = logging.getLogger(__name__)

FORMAT = 2
PIECE_ROWS = 32_768
"""Rows that are labelled at a time; a killed process loses what it did of one such piece."""

Column = np.ndarray | tuple[np.ndarray, np.ndarray]
"""``[N, ...]``, or the values ``[sum of lengths, d]`` and offsets ``[N + 1]`` of a column of token vectors."""


@dataclass(frozen=True)
class CacheKey:
    """What decides the teacher's outputs, and nothing else: no batch size, device or worker count.

    Args:
        teacher: checksum of the teacher's weights and configuration.
        tokenizer: fingerprint of the teacher's tokenizer.
        max_length: tokens after which texts are cut.
        column: the output stored, such as ``logits``.
        texts: hash of the texts, in order.
    """

    teacher: str
    tokenizer: str
    max_length: int
    column: str
    texts: str

    @property
    def digest(self) -> str:
        fields = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(fields.encode()).hexdigest()[:20]


def texts_hash(texts: Iterable[str]) -> str:
    """SHA-256 over the texts in order; each is preceded by its length, so that no two lists collide."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def obtain(
    folder: Path,
    keys: Sequence[CacheKey],
    lengths: Callable[[], np.ndarray],
    compute: Callable[[list[str]], Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]]],
    note: Mapping[str, object] | None = None,
) -> dict[str, Column]:
    """The columns for these keys: read from disk, or computed in one pass and stored.

    Args:
        folder: where all caches live.
        keys: what is asked for, one key a column.
        lengths: gives the ``[N]`` tokens a row; called only where something is missing.
        compute: given the names of the columns that are missing, yields row numbers ``[B]`` and the columns'
            values for them, in any order: ``[B, ...]``, or ``[B, L, d]`` for a vector a token, of which the
            first ``lengths()[row]`` are kept.
        note: facts for people, kept in ``meta.json``.

    Returns:
        the columns by name, memory-mapped and read-only.

    Raises:
        KDError: if ``compute`` left a row out or gave a value that is not finite.
    """
    places = {key.column: Path(folder) / key.digest for key in keys}
    Path(folder).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for place in sorted(places.values()):  # one order for all, so that two processes never wait for each other
            stack.enter_context(lock(place))
        missing = [key for key in keys if not _whole(places[key.column])]
        building = {key.column: places[key.column].with_suffix(f".building-{mark()}") for key in missing}
        try:
            if missing:
                for key in missing:
                    _begun(places[key.column])
                _write(building, missing, lengths(), compute, note or {})
                for name, place in building.items():
                    os.replace(place, places[name])
        except BaseException:
            for place in building.values():
                shutil.rmtree(place, ignore_errors=True)
            raise
        return {name: _open(place) for name, place in places.items()}


def join(
    folder: Path,
    keys: Sequence[CacheKey],
    pieces: Path,
    parts: Sequence[Sequence[CacheKey]],
    note: Mapping[str, object] | None = None,
) -> bool:
    """Make caches of those of their pieces.

    Args:
        folder: where all caches live.
        keys: of the whole, one a column.
        pieces: the folder with the caches of the pieces.
        parts: for each piece the keys of the same columns.
        note: facts for people, kept in ``meta.json`` beside those of the first piece.

    Returns:
        whether all pieces were whole; those that were damaged are gone.
    """
    for column, key in enumerate(keys):
        place = Path(folder) / key.digest
        with lock(place):
            if place.exists():
                continue
            sources = [Path(pieces) / part[column].digest for part in parts]
            if not all([_whole(source) for source in sources]):
                return False
            building = _begun(place)
            _join(building, key, sources, note or {})
            os.replace(building, place)
    return True


def _begun(place: Path) -> Path:
    """The folder in which a cache is built, behind its lock; what a killed process left of it goes."""
    for leftover in place.parent.glob(f"{place.stem}.building-*"):
        shutil.rmtree(leftover)
    building = place.with_suffix(f".building-{mark()}")
    building.mkdir()
    return building


def _table(file: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """A file of this array to write into, with its room on the disk taken.

    Raises:
        OSError: the disk is full; without the room taken, the first write to a page of it would kill the process.
    """
    table = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    with file.open("r+b") as opened:
        size = os.fstat(opened.fileno()).st_size
        if size and sys.platform == "linux":
            os.posix_fallocate(opened.fileno(), 0, size)
    return table


def _join(place: Path, key: CacheKey, pieces: Sequence[Path], note: Mapping) -> None:
    metas = [json.loads((piece / "meta.json").read_text()) for piece in pieces]
    shape = [sum(meta["shape"][0] for meta in metas), *metas[0]["shape"][1:]]
    table = _table(place / "values.npy", metas[0]["dtype"], tuple(shape))
    row, counts = 0, []
    for piece in pieces:
        found = _open(piece)
        values = found[0] if isinstance(found, tuple) else found
        counts += [np.diff(found[1])] if isinstance(found, tuple) else []
        table[row : row + len(values)] = values
        row += len(values)
    table.flush()
    if counts:
        np.save(place / "offsets.npy", np.concatenate([[0], np.cumsum(np.concatenate(counts), dtype=np.int64)]))
    rows, seconds = (sum(meta[name] for meta in metas) for name in ("rows", "seconds"))
    kept = {name: value for name, value in metas[0].items() if name not in META}
    _describe(place, key, rows, table, round(seconds, 3), kept | dict(note))


def absent(folder: Path, keys: Iterable[CacheKey]) -> list[str]:
    """The names of the columns that would have to be computed."""
    return [key.column for key in keys if not (Path(folder) / key.digest).exists()]


def seconds(folder: Path, key: CacheKey) -> float:
    """How long computing took."""
    return json.loads((Path(folder) / key.digest / "meta.json").read_text())["seconds"]


def damage(place: Path) -> str | None:
    """What is wrong with a cache on disk, as a phrase; None where every checksum holds."""
    try:
        meta = json.loads((place / "meta.json").read_text())
        files = meta["files"]
        if "values.npy" not in files or not isinstance(meta["seconds"], float):
            return "meta.json contradicts itself"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"meta.json cannot be read: {error}"
    for name, checksum in files.items():
        path = place / name
        if not path.is_file():
            return f"{name} is missing"
        if _checksum(path) != checksum:
            return f"{name} does not match its checksum"
    return None


def entries(folder: Path) -> list[Path]:
    """The caches in a folder, oldest first."""
    found = [path.parent for path in Path(folder).glob("*/meta.json") if "." not in path.parent.name]
    return sorted(found, key=lambda place: (place / "meta.json").stat().st_mtime)


def remove(place: Path) -> None:
    """Delete one cache, not while another process builds or opens it."""
    with lock(place):
        shutil.rmtree(place)


def _whole(place: Path) -> bool:
    """Whether a cache is there and unharmed; a damaged one is removed."""
    if not place.exists():
        return False
    problem = damage(place)
    if problem:
        log.warning("teacher cache %s is damaged (%s): it is built anew", place, problem)
        shutil.rmtree(place)
    return problem is None


def _write(
    places: Mapping[str, Path], keys: Sequence[CacheKey], lengths: np.ndarray, compute: Callable, note: Mapping
) -> None:
    start = time.perf_counter()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    tables: dict[str, np.memmap] = {}
    by_token: set[str] = set()
    written = np.zeros(len(lengths), dtype=bool)
    for index, values in compute([key.column for key in keys]):
        for name, value in values.items():
            if name not in tables:
                by_token |= {name} if value.ndim == 3 else set()
                rows = offsets[-1] if name in by_token else len(lengths)
                shape = (int(rows), *value.shape[2 if name in by_token else 1 :])
                file = places[name] / "values.npy"
                tables[name] = _table(file, value.dtype, shape)
            real = value
            if name in by_token:  # padded positions may hold anything, nan too
                real = np.where((np.arange(value.shape[1]) < lengths[index][:, None])[..., None], value, 0)
            if not np.isfinite(real).all():
                bad = index[~np.isfinite(real).reshape(len(index), -1).all(axis=1)]
                raise KDError(
                    f"the teacher's {name} are not finite for rows {bad[:10].tolist()} in {value.dtype}; check the "
                    "teacher's weights and precision, and where numbers beyond 65504 are meant set cache.use=false"
                )
            if name in by_token:
                for row, vectors in zip(index, value, strict=True):
                    tables[name][offsets[row] : offsets[row + 1]] = vectors[: lengths[row]]
            else:
                tables[name][index] = value
        written[index] = True
    if not written.all():
        raise KDError(f"the teacher answered {written.sum()} of {len(lengths)} rows; labelling must cover every row")
    duration = float(round(time.perf_counter() - start, 3))
    for key in keys:
        place, table = places[key.column], tables[key.column]
        table.flush()
        if key.column in by_token:
            np.save(place / "offsets.npy", offsets)
        _describe(place, key, len(lengths), table, duration, note)


META = ("format", "key", "rows", "dtype", "shape", "files", "seconds")


def _describe(place: Path, key: CacheKey, rows: int, table: np.ndarray, seconds: float, note: Mapping) -> None:
    meta = {
        "format": FORMAT,
        "key": asdict(key),
        "rows": rows,
        "dtype": str(table.dtype),
        "shape": list(table.shape),
        "files": {path.name: _checksum(path) for path in sorted(place.glob("*.npy"))},
        "seconds": seconds,
    }
    (place / "meta.json").write_text(json.dumps(meta | dict(note), indent=2))


def _open(place: Path) -> Column:
    values = np.load(place / "values.npy", mmap_mode="r", allow_pickle=False)
    offsets = place / "offsets.npy"
    return (values, np.load(offsets, allow_pickle=False)) if offsets.exists() else values


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
