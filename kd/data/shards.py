"""A transfer set that is larger than memory: its texts in shards on disk, each text once."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import SoftFileLease

from kd.data.files import LINES_KEPT
from kd.data.slices import Counts, Source, read_slices, repeated, write_table
from kd.data.splits import FATES
from kd.errors import KDError
from kd.storage.files import write_bytes
from kd.storage.locks import lock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Texts on disk.

    Args:
        name: of the file.
        rows: how many texts.
        hash: of the texts in order.
        checksum: SHA-256 of the file.
    """

    name: str
    rows: int
    hash: str
    checksum: str


class TextShards:
    """The shards of a source; they are made by whoever asks first, while others wait.

    Args:
        folder: where all transfer sets live.
        source: what this one is made of.
        texts_hash: tells a list of texts from others.
    """

    def __init__(self, folder: Path, source: Source, texts_hash: Callable[[Sequence[str]], str]):
        self.place, self.source, self.texts_hash = Path(folder) / source.key, source, texts_hash
        self.place.mkdir(parents=True, exist_ok=True)
        with self._lock():
            try:
                self._read()
            except (OSError, ValueError, KeyError, TypeError):
                self._build()
                self._read()

    def _read(self) -> None:
        content = json.loads(self._manifest.read_text())
        self.shards = [Shard(**shard) for shard in content["shards"]]
        self.counts = Counts(**content["counts"])

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def checksum(self) -> str:
        """Of all texts in order."""
        return hashlib.sha256("".join(shard.hash for shard in self.shards).encode()).hexdigest()

    @property
    def _manifest(self) -> Path:
        return self.place / "manifest.json"

    def _lock(self) -> SoftFileLease:
        return lock(self.place)

    def texts(self, number: int) -> list[str]:
        """The texts of a shard; where it is damaged, all are taken out of the files again.

        Raises:
            KDError: the files do not hold them any more.
        """
        shard = self.shards[number]
        table = self._whole(shard)
        if table is None:
            with self._lock():
                if self._whole(shard) is None:  # unless another process was first
                    log.warning("transfer set: %s is damaged: the files are read again", self.place / shard.name)
                    self._build()
            table = self._whole(shard)
        if table is None:
            raise KDError(
                f"the files of data.unlabelled are no longer those that {self.place} was made of; run it anew"
            )
        return table["text"].to_pylist()

    def _whole(self, shard: Shard) -> pa.Table | None:
        """The rows of a shard; None where the file is not what it was."""
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
            content = path.read_bytes()  # from a file Arrow reads with threads, which a fork server shall not have
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
                f"expected texts in data.unlabelled that stand in no split yet, found none among {counts.read:,} rows "
                f"of {files} ({', '.join(f'{count:,} {fate}' for fate, count in counts.fates.items())}); give others"
            )
        content = {"shards": [asdict(shard) for shard in shards], "counts": asdict(counts)}
        write_bytes(self._manifest, json.dumps(content).encode())
        shutil.rmtree(folder)

    def _once(self, table: pa.Table, twice: np.ndarray, counts: Counts) -> pa.Table:
        """The rows that are the first of their text; the others are counted."""
        if not twice.any():
            return table
        gone = table.filter(pa.array(twice)).slice(0, LINES_KEPT)
        lines = self.source.places(gone["file"].to_pylist(), gone["line"].to_pylist())
        counts.add("duplicates", int(twice.sum()), lines)
        return table.filter(pa.array(~twice))

    def facts(self) -> dict[str, Any]:
        """What it holds and what was left out."""
        return {"rows": self.rows, "sha256": self.checksum, "shards": len(self), **asdict(self.counts)}

    def report(self) -> str:
        """What was read, used and dropped, for the log."""
        lines = [f"transfer set: {self.counts.read:,} rows read, {self.rows:,} used, in {len(self):,} shards"]
        for fate in FATES:
            if count := self.counts.fates.get(fate):
                more = ", ..." if count > 5 else ""
                places = ", ".join(self.counts.lines[fate][:5])
                lines.append(f"  left out, {fate.replace('_', ' ')}: {count:,} ({places}{more})")
        return "\n".join(lines)
