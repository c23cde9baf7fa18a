"""Teacher outputs on disk: computed once, read by every run that asks for the same thing.

``<folder>/<digest>/`` holds one ``.npy`` a column and ``meta.json``. A cache is written beside its place
and renamed into it, behind a lock, so that one process builds while the others wait. Every file's SHA-256
stands in ``meta.json`` and is checked before the cache is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from kd.errors import KDError

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class CacheKey:
    """What decides the teacher's outputs, and nothing else: no batch size, device or worker count.

    Args:
        teacher: checksum of the teacher's weights and configuration.
        tokenizer: fingerprint of the teacher's tokenizer.
        max_length: tokens after which texts are cut.
        columns: the outputs stored, such as ``("logits",)``.
        texts: hash of the texts, in order.
    """

    teacher: str
    tokenizer: str
    max_length: int
    columns: tuple[str, ...]
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
    key: CacheKey,
    rows: int,
    compute: Callable[[], Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]]],
    note: Mapping[str, object] | None = None,
) -> dict[str, np.ndarray]:
    """The columns for a key: read from disk, or computed and stored.

    Args:
        folder: where all caches live.
        key: what is asked for.
        rows: number of rows N.
        compute: yields row numbers ``[B]`` and the columns' values ``[B, ...]`` for them, in any order.
        note: facts for people, kept in ``meta.json``.

    Returns:
        one memory-mapped, read-only array ``[N, ...]`` a column.

    Raises:
        KDError: if ``compute`` left a row out or gave a value that is not finite.
    """
    place = Path(folder) / key.digest
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):
        if place.exists():
            problem = damage(place)
            if problem is None:
                return _open(place)
            log.warning("teacher cache %s is damaged (%s): it is built anew", place, problem)
            shutil.rmtree(place)
        for leftover in place.parent.glob(f"{key.digest}.building-*"):
            shutil.rmtree(leftover)
        building = place.with_suffix(f".building-{os.getpid()}")
        building.mkdir()
        try:
            _write(building, key, rows, compute, note or {})
            os.replace(building, place)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        return _open(place)


def damage(place: Path) -> str | None:
    """What is wrong with a cache on disk, as a phrase; None where every checksum holds."""
    try:
        meta = json.loads((place / "meta.json").read_text())
        files = meta["files"]
        if {f"{name}.npy" for name in meta["columns"]} != set(files) or not isinstance(meta["seconds"], float):
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
    found = [path.parent for path in Path(folder).glob("*/meta.json")]
    return sorted(found, key=lambda place: (place / "meta.json").stat().st_mtime)


def remove(place: Path) -> None:
    """Delete one cache, not while another process builds or opens it."""
    lock = FileLock(place.with_suffix(".lock"))
    with lock:
        shutil.rmtree(place)
    Path(lock.lock_file).unlink(missing_ok=True)


def _write(place, key, rows, compute, note) -> None:
    start = time.perf_counter()
    columns: dict[str, np.memmap] = {}
    written = np.zeros(rows, dtype=bool)
    for index, values in compute():
        for name, value in values.items():
            if name not in columns:
                columns[name] = np.lib.format.open_memmap(
                    place / f"{name}.npy", mode="w+", dtype=value.dtype, shape=(rows, *value.shape[1:])
                )
            if not np.isfinite(value).all():
                bad = index[~np.isfinite(value).reshape(len(index), -1).all(axis=1)]
                raise KDError(
                    f"the teacher's {name} are not finite for rows {bad[:10].tolist()}; "
                    "check the teacher's weights and precision"
                )
            columns[name][index] = value
        written[index] = True
    if not written.all():
        raise KDError(f"the teacher answered {written.sum()} of {rows} rows; labelling must cover every row")
    for column in columns.values():
        column.flush()
    meta = {
        "format": FORMAT,
        "key": asdict(key),
        "rows": rows,
        "columns": {name: {"dtype": str(c.dtype), "shape": list(c.shape)} for name, c in columns.items()},
        "files": {f"{name}.npy": _checksum(place / f"{name}.npy") for name in columns},
        "seconds": float(round(time.perf_counter() - start, 3)),
        **note,
    }
    (place / "meta.json").write_text(json.dumps(meta, indent=2))


def _open(place: Path) -> dict[str, np.ndarray]:
    names = json.loads((place / "meta.json").read_text())["columns"]
    return {name: np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
