"""Teacher outputs on disk: computed once, and read by every run that needs the same outputs.

``<folder>/<digest>/`` contains one column: ``values.npy``, ``offsets.npy`` if a row has one vector per token, and
``meta.json``. A cache is written beside its place and then renamed, behind a lock: one process builds it while the
others wait. ``meta.json`` contains the SHA-256 of every file, which is checked before the cache is used.

A large cache is built in pieces (`kd.storage.pieces`), and each piece is a cache of its own. Several processes divide
the pieces among them. Finished pieces remain when a process is killed. `join` makes one cache of all pieces.
"""

from __future__ import annotations

import hashlib
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
from kd.storage import records
from kd.storage.cache_records import CachedColumn
from kd.storage.checksum import digest as json_digest
from kd.storage.checksum import file_sha256
from kd.storage.files import built_beside
from kd.storage.locks import lock

log = logging.getLogger(__name__)

FORMAT = 2
PIECE_ROWS = 32_768
"""Rows of a piece; a killed process loses the unfinished piece."""

Column = np.ndarray | tuple[np.ndarray, np.ndarray]
"""``[N, ...]``, or for token vectors the values ``[sum of lengths, d]`` and the offsets ``[N + 1]``."""


@dataclass(frozen=True)
class CacheKey:
    """Everything that affects the teacher's outputs, and nothing else: no batch size, no device, no worker count.

    Args:
        teacher: hash of the teacher's weights and configuration.
        tokenizer: hash of the teacher's tokenizer.
        max_length: tokens after which texts are truncated.
        column: the output, such as ``logits``.
        texts: hash of the texts in their order.
    """

    teacher: str
    tokenizer: str
    max_length: int
    column: str
    texts: str

    @property
    def digest(self) -> str:
        return json_digest({"format": FORMAT, **asdict(self)})[:20]


Keys = Sequence[CacheKey]


def texts_hash(texts: Iterable[str]) -> str:
    """Return the SHA-256 of the texts in their order; the length before each text keeps different lists apart."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def obtain(
    folder: Path,
    keys: Keys,
    lengths: Callable[[], np.ndarray],
    compute: Callable[[list[str]], Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]]],
    note: Mapping[str, object] | None = None,
) -> dict[str, Column]:
    """Return the columns of these keys: read them from disk, or compute them in one pass and store them.

    Args:
        folder: contains all caches.
        keys: of the columns, one each.
        lengths: () -> number of tokens of each row ``[N]``; called only if a column is missing.
        compute: (names of missing columns) -> row numbers ``[B]`` and the columns' values for these rows, batch by
            batch in any order. Values are ``[B, ...]``, or ``[B, L, d]`` for one vector per token, of which the first
            ``lengths()[row]`` are stored.
        note: facts for readers of ``meta.json``.

    Returns:
        the columns by name, memory-mapped and read-only.

    Raises:
        KDError: ``compute`` left out a row or gave a value that is not finite.
    """
    places = {key.column: Path(folder) / key.digest for key in keys}
    Path(folder).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for place in sorted(places.values()):  # the same order in all processes, which prevents a deadlock
            stack.enter_context(lock(place))
        missing = [key for key in keys if not _whole(places[key.column])]
        if missing:
            with ExitStack() as beside:
                building = {key.column: beside.enter_context(built_beside(places[key.column])) for key in missing}
                _write(building, missing, lengths(), compute, note or {})
        return {name: _open(place) for name, place in places.items()}


def join(folder: Path, keys: Keys, pieces: Path, parts: Sequence[Keys], note: Mapping[str, object]) -> bool:
    """Make one cache of several pieces, for each column.

    Args:
        folder: contains all caches.
        keys: of the whole columns.
        pieces: the folder that contains the caches of the pieces.
        parts: for each piece, the keys of the same columns.
        note: facts for readers of ``meta.json``, beside those of the first piece.

    Returns:
        whether all pieces were intact; a damaged piece is removed.
    """
    for column, key in enumerate(keys):
        place = Path(folder) / key.digest
        with lock(place):
            if place.exists():
                continue
            sources = [Path(pieces) / part[column].digest for part in parts]
            if not all([_whole(source) for source in sources]):
                return False
            with built_beside(place) as building:
                _join(building, key, sources, note)
    return True


def _table(file: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """Create the file of an array, with its space on the disk reserved, and open it for writing.

    Raises:
        OSError: the disk is full. Without the reservation, a later write would kill the process.
    """
    table = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    with file.open("r+b") as opened:
        size = os.fstat(opened.fileno()).st_size
        if size and sys.platform == "linux":
            os.posix_fallocate(opened.fileno(), 0, size)
    return table


def _join(place: Path, key: CacheKey, pieces: Sequence[Path], note: Mapping) -> None:
    metas = [records.read(piece / "meta.json", CachedColumn) for piece in pieces]
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
    """Return the names of the columns that are not in the folder."""
    return [key.column for key in keys if not (Path(folder) / key.digest).exists()]


def seconds(folder: Path, key: CacheKey) -> float:
    """Return how long the computation of a column took."""
    return records.read(Path(folder) / key.digest / "meta.json", CachedColumn)["seconds"]


def damage(place: Path) -> str | None:
    """Return what is wrong with a cache on disk, as a phrase; None if every checksum is right."""
    try:
        meta = records.read(place / "meta.json", CachedColumn)
    except KDError as error:
        return f"meta.json cannot be read: {error}"
    files = meta["files"]
    if "values.npy" not in files:
        return "meta.json contradicts itself"
    if json_digest({"format": meta.get("format", FORMAT), **meta["key"]})[:20] != place.name:
        return "meta.json is of another cache"
    if added := {path.name for path in place.glob("*.npy")} - set(files):
        return f"{min(added)} was not there when it was written"
    for name, checksum in files.items():
        path = place / name
        if not path.is_file():
            return f"{name} is missing"
        if file_sha256(path) != checksum:
            return f"{name} does not match its checksum"
    return None if _described(place, meta) else "meta.json does not describe values.npy"


def _described(place: Path, meta: Mapping[str, Any]) -> bool:
    """Return whether the sizes in ``meta.json`` are those of the files; an early kd wrote it without a checksum."""
    try:
        found = _open(place)
    except ValueError:
        return False
    values, rows = (found[0], len(found[1]) - 1) if isinstance(found, tuple) else (found, len(found))
    return (str(values.dtype), list(values.shape), rows) == (meta["dtype"], meta["shape"], meta["rows"])


def entries(folder: Path) -> list[Path]:
    """Return the caches in a folder, oldest first."""
    found = [path.parent for path in Path(folder).glob("*/meta.json") if "." not in path.parent.name]
    return sorted(found, key=lambda place: (place / "meta.json").stat().st_mtime)


def remove(place: Path) -> None:
    """Delete one cache, after any process that builds or opens it."""
    with lock(place):
        shutil.rmtree(place)


def _whole(place: Path) -> bool:
    """Return whether a cache exists and is intact; remove a damaged one."""
    if not place.exists():
        return False
    if problem := damage(place):
        log.warning("teacher cache %s is damaged (%s): it is built again", place, problem)
        shutil.rmtree(place)
    return problem is None


def _write(places: Mapping[str, Path], keys: Keys, lengths: np.ndarray, compute: Callable, note: Mapping) -> None:
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
                tables[name] = _table(places[name] / "values.npy", value.dtype, shape)
            real = value
            if name in by_token:  # padded positions may contain any value, even nan
                real = np.where((np.arange(value.shape[1]) < lengths[index][:, None])[..., None], value, 0)
            if not np.isfinite(real).all():
                bad = index[~np.isfinite(real).reshape(len(index), -1).all(axis=1)]
                raise KDError(
                    f"the teacher's {name} are not finite for rows {bad[:10].tolist()} in {value.dtype}; check the "
                    "teacher's weights and precision; if values beyond 65504 are right, set cache.use=false"
                )
            if name in by_token:
                for row, vectors in zip(index, value, strict=True):
                    tables[name][offsets[row] : offsets[row + 1]] = vectors[: lengths[row]]
            else:
                tables[name][index] = value
        written[index] = True
    if not written.all():
        raise KDError(
            f"expected teacher outputs for {len(lengths)} rows, got {written.sum()}; labelling must cover every row"
        )
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
        "files": {path.name: file_sha256(path) for path in sorted(place.glob("*.npy"))},
        "seconds": seconds,
    }
    records.write(place / "meta.json", meta | dict(note))


def _open(place: Path) -> Column:
    values = np.load(place / "values.npy", mmap_mode="r", allow_pickle=False)
    offsets = place / "offsets.npy"
    return (values, np.load(offsets, allow_pickle=False)) if offsets.exists() else values
