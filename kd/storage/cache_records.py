"""The schemas of what can be made again: caches of the teacher's outputs, and transfer sets. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Le, MinLen
from pydantic import StringConstraints

from kd.storage.records import Amount, Record, Sha256, Size


class LeftOut(Record):
    """`kd.data.counts.Counts` in a file."""

    read: Size
    fates: dict[str, Size]
    lines: dict[str, list[str]]
    faults: dict[str, str]


class TextSlice(Record):
    """A slice of a transfer set that is being read: its counts, and the SHA-256 of its files."""

    counts: LeftOut
    files: dict[str, Sha256]


class TextShard(Record):
    """A shard of a transfer set."""

    name: Annotated[str, StringConstraints(pattern=r"^\d{6,}\.arrow$")]
    rows: Annotated[int, Ge(1), Le(2**62)]
    hash: Sha256
    checksum: Sha256


class TransferSet(Record):
    """``manifest.json`` of a transfer set in shards."""

    key: str
    shards: Annotated[list[TextShard], MinLen(1)]
    counts: LeftOut


class CachedColumn(Record):
    """``meta.json`` of a column of the teacher cache, or of a piece of it."""

    key: dict[str, Any]
    rows: Size
    shape: list[Size]
    dtype: str
    seconds: Amount
    files: dict[str, Sha256]
