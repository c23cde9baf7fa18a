"""Make a transfer set from steps, and keep it in Parquet files that the runs of a sweep share.

``<outputs>/transfer_sets/steps/<key>/`` contains the texts that a step has made, in parts. A finished part stays after
an interruption. ``<outputs>/transfer_sets/<key>/`` contains the chosen texts, with a manifest. Both keys depend on
everything that decides the texts: the steps, their seed, the training rows, the rows for evaluation and the files read.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from kd.errors import KDError
from kd.storage import records
from kd.storage.checksum import file_sha256
from kd.storage.files import built_beside
from kd.storage.locks import lock
from kd.transfer.choosing import Candidates, choose, in_words
from kd.transfer.parts import chunks, make_parts
from kd.transfer.recipe import Known, TransferRecipe

log = logging.getLogger(__name__)

SHARD_ROWS = 32_768
FOLDER = "transfer_sets"


class Shard(records.Record):
    """A file with texts."""

    name: str
    rows: records.Size
    sha256: records.Sha256


class Counted(records.Record):
    """How many texts a step has made, how many are used, and how many were dropped, by the reason."""

    made: records.Size
    used: records.Size
    dropped: dict[str, records.Size]


class Manifest(records.Record):
    """``manifest.json`` of a transfer set."""

    format: records.Size
    rows: records.Size
    sha256: records.Sha256
    shards: list[Shard]
    steps: dict[str, Counted]
    seconds: records.Amount


class TransferSet:
    """A transfer set on disk. The first process that needs it makes it, and others wait.

    Args:
        outputs: folder of runs.
        recipe: what makes it.
        known: the rows of the run.

    Attributes:
        files: the Parquet files, with the columns of the texts and ``step``.
    """

    def __init__(self, outputs: Path, recipe: TransferRecipe, known: Known):
        self.recipe, self.known, self.root = recipe, known, Path(outputs) / FOLDER
        self.place = self.root / recipe.key(known)
        self.root.mkdir(parents=True, exist_ok=True)
        with lock(self.place):
            found = self._read()
            self.is_new = found is None
            self.manifest = found or self._make()

    @property
    def files(self) -> list[Path]:
        return [self.place / shard["name"] for shard in self.manifest["shards"]]

    def facts(self) -> dict[str, Any]:
        """Return what ``environment.json`` has about the transfer set."""
        return {
            "folder": str(self.place),
            **{key: self.manifest[key] for key in ("rows", "sha256", "steps", "seconds")},
        }

    def report(self) -> str:
        """Return one line for the log: how many texts, from which steps, how many were dropped and why."""
        parts = []
        for name, counts in self.manifest["steps"].items():
            dropped = f" (dropped: {in_words(counts['dropped'])})" if counts["dropped"] else ""
            parts.append(f"{name} {counts['used']:,} of {counts['made']:,}{dropped}")
        state = f"made in {self.manifest['seconds']:.1f} s" if self.is_new else "made before"
        return f"transfer set: {self.manifest['rows']:,} texts, {state}: {'; '.join(parts)}; in {self.place}"

    def _read(self) -> dict[str, Any] | None:
        """Return the manifest; None if the set is missing or damaged."""
        path = self.place / "manifest.json"
        if not path.is_file():
            return None
        try:
            content = records.read(path, Manifest)
            for shard in content["shards"]:
                if file_sha256(self.place / shard["name"]) != shard["sha256"]:
                    raise KDError(f"{shard['name']} does not match its checksum")
        except (KDError, OSError) as error:
            log.warning("transfer set: %s is damaged and is made again (%s)", self.place, error)
            return None
        return content

    def _make(self) -> dict[str, Any]:
        """Make the texts, choose among them, and write them beside the place of the set, which they replace."""
        start, recipe, known = time.perf_counter(), self.recipe, self.known
        folders = {name: self.root / "steps" / recipe.key_of_step(name, known) for name in recipe.steps}
        made = {
            name: make_parts(name, step, known.train, recipe.seed, folders[name]) for name, step in recipe.steps.items()
        }
        chosen = choose(recipe, known, made)
        with built_beside(self.place) as folder:
            shards, sha256 = write_shards(folder, chosen, recipe.column)
            manifest = {
                "format": records.FORMAT,
                "recipe": {"seed": recipe.seed, "rows": recipe.rows, "steps": recipe.options},
                "rows": sum(shard["rows"] for shard in shards),
                "sha256": sha256,
                "shards": shards,
                "steps": {each.step: each.counts() for each in chosen},
                "seconds": round(time.perf_counter() - start, 2),
            }
            records.write(folder / "manifest.json", manifest)
        return manifest


def write_shards(folder: Path, chosen: Sequence[Candidates], column: str) -> tuple[list[dict[str, Any]], str]:
    """Write the chosen texts to Parquet files; return the facts of each file, and the checksum of all texts.

    Args:
        folder: where they are written.
        chosen: the texts of each step.
        column: name of the column of the texts.
    """
    from pyarrow import parquet

    rows = ((text, each.step) for each in chosen for text in each.texts())
    schema, shards, checksum = pa.schema({column: pa.string(), "step": pa.string()}), [], hashlib.sha256()
    for number, found in enumerate(chunks(rows, SHARD_ROWS)):
        path = folder / f"part-{number:05}.parquet"
        parquet.write_table(pa.table(list(zip(*found, strict=True)), schema=schema), path)
        shards.append({"name": path.name, "rows": len(found), "sha256": file_sha256(path)})
        checksum.update("\0".join([*(text for text, _ in found), ""]).encode())
    return shards, checksum.hexdigest()
