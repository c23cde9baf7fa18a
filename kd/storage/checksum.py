"""SHA-256 checksums of files and of JSON values. Needs no torch."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def digest(content: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal. The order of its keys does not matter.

    Args:
        content: a value that `json.dumps` accepts.
        default: turns any other object into a JSON value, as in `json.dumps`.

    >>> digest({"rows": 3, "seed": 0}) == digest({"seed": 0, "rows": 3})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=default).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. While the file does not change, a process reads it only once.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    return _computed(path.resolve(), state.st_size, state.st_mtime_ns, state.st_ino)


@functools.cache
def _computed(path: Path, size: int, modified_ns: int, inode: int) -> str:
    # All arguments but the path only serve as the key of the cache: a changed file is read again.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
