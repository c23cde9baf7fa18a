"""A file's SHA-256, computed once a process as long as the file stays as it is."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """In hexadecimal; hashing takes as long as reading, and a run asks for its teacher's three times.

    Raises:
        OSError: a file that cannot be read.
    """
    facts = path.stat()
    return _computed(path.resolve(), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@functools.cache
def _computed(path: Path, size: int, modified_ns: int, inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
