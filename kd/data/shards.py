"""Keep the texts of a transfer set that is larger than memory in shards on disk."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kd.data.counts import LINES_KEPT, Counts
from kd.data.slices import Source, read_slices, repeated, write_table
from kd.data.splits import left_out
from kd.errors import KDError
from kd.storage import records
from kd.storage.locks import lock

log = logging.getLogger(__name__)


class TransferSet(records.Record):
    """``manifest.json`` of a transfer set in shards."""

    shards: list[dict[str, Any]]
    counts: dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """A file with texts of a transfer set.

    Args:
        name: of the file.
        rows: number of texts.
        hash: of the texts, in order.
        checksum: SHA-256 of the file.
    """

    name: str
    rows: int
    hash: str
    checksum: str


class TextShards:
    """The shards of a transfer set. The first process that needs them builds them, and others wait.

    Args:
        folder: contains all transfer sets.
        source: the files of this transfer set, and which of their texts to use.
        texts_hash: returns the hash of a list of texts.
    """

    def __init__(self, folder: Path, source: Source, texts_hash: Callable[[Sequence[str]], str]):
        self.place, self.source, self.texts_hash = Path(folder) / source.key, source, texts_hash
        self.place.mkdir(parents=True, exist_ok=True)
        with lock(self.place):
            try:
                self._read()
            except (KDError, TypeError):
                self._build()
                self._read()

    def _read(self) -> None:
        content = records.read(self._manifest, TransferSet)
        self.shards = [Shard(**shard) for shard in content["shards"]]
        self.counts = Counts(**content["counts"])

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def checksum(self) -> str:
        """The hash of all texts, in order."""
        return hashlib.sha256("".join(shard.hash for shard in self.shards).encode()).hexdigest()

    @property
    def _manifest(self) -> Path:
        return self.place / "manifest.json"

    def texts(self, number: int) -> list[str]:
        """Return the texts of a shard. If it is missing or damaged, all shards are built again.

        Raises:
            KDError: the files of the transfer set have changed.
        """
        shard = self.shards[number]
        table = self._whole(shard)
        if table is None:
            with lock(self.place):
                if self._whole(shard) is None:  # another process may have built it meanwhile
                    log.warning("transfer set: %s is damaged; the files are read again", self.place / shard.name)
                    self._build()
            table = self._whole(shard)
        if table is None:
            raise KDError(
                f"expected the files of data.unlabelled that {self.place} was built from, found others; start the run "
                "again"
            )
        return table["text"].to_pylist()

    def _whole(self, shard: Shard) -> pa.Table | None:
        """Return the rows of a shard; None if the file is missing or damaged."""
        try:
            content = (self.place / shard.name).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest() != shard.checksum:
            return None
        return pa.ipc.open_file(pa.BufferReader(content)).read_all()

    def _build(self) -> None:
        files = ", ".join(str(file) for file in self.source.files)
        log.info("transfer set: reading %s (once)", files)
        folder = self.place / "slices"
        folder.mkdir(exist_ok=True)
        slices, counts = read_slices(folder, self.source)
        bits = repeated(slices, self.source.slice_rows) if self.source.deduplicate else None
        shards = []
        for number, path in enumerate(slices):
            content = path.read_bytes()  # Arrow would read the file with threads, and then no process may fork
            table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
            if bits is not None:
                twice = np.unpackbits(bits[number], count=len(table), bitorder="little").astype(bool)
                table = self._once(table, twice, counts)
            if len(table):
                content = write_table(self.place / path.name, table)
                texts_hash, checksum = self.texts_hash(table["text"].to_pylist()), hashlib.sha256(content).hexdigest()
                shards.append(Shard(path.name, len(table), texts_hash, checksum))
        if not shards:
            raise KDError(
                f"expected texts in data.unlabelled that are in no split, found none among {counts.read:,} rows of "
                f"{files} ({', '.join(f'{count:,} {fate}' for fate, count in counts.fates.items())}); add other files"
            )
        records.write(self._manifest, {"shards": [asdict(shard) for shard in shards], "counts": asdict(counts)})
        shutil.rmtree(folder)

    def _once(self, table: pa.Table, twice: np.ndarray, counts: Counts) -> pa.Table:
        """Return the rows without those marked in ``twice``, whose texts occur before; these are counted."""
        if not twice.any():
            return table
        gone = table.filter(pa.array(twice)).slice(0, LINES_KEPT)
        lines = self.source.places(gone["file"].to_pylist(), gone["line"].to_pylist())
        counts.add("duplicates", int(twice.sum()), lines)
        return table.filter(pa.array(~twice))

    def facts(self) -> dict[str, Any]:
        """Return how many rows there are and were left out, for `environment.json`."""
        return {"rows": self.rows, "sha256": self.checksum, "shards": len(self), **asdict(self.counts)}

    def report(self) -> str:
        """Return how many rows were read, used and left out, for the log."""
        total = f"transfer set: {self.counts.read:,} rows read, {self.rows:,} used, in {len(self):,} shards"
        return "\n".join([total, *left_out(self.counts.fates, self.counts.lines)])
