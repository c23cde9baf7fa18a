"""Write files and folders in one step, so that no reader finds a half-written one. Needs no torch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kd.errors import KDError
from kd.storage.locks import mark


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        KDError: the file is missing or damaged, or holds another JSON value.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise KDError(f"expected a JSON file at '{path}', found none that can be read: {error}") from error
    if not isinstance(content, dict):
        raise KDError(f"expected a JSON object in '{path}', found a {type(content).__name__}")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write or replace a JSON file in one step."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write or replace a text file in one step."""
    write_bytes(path, content.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write or replace a file in one step."""
    temporary = path.with_name(f".{path.name}.{mark()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


@contextmanager
def built_beside(place: Path) -> Iterator[Path]:
    """Give an empty folder beside ``place``. At the end of the block, it is renamed to ``place``.

    If the block raises an exception, the folder is removed and ``place`` stays as it was. The caller must hold the
    lock of ``place``: what killed processes have left beside it is removed first.
    """
    for leftover in place.parent.glob(f"{place.name}.building-*"):
        shutil.rmtree(leftover)
    building = place.with_name(f"{place.name}.building-{mark()}")
    building.mkdir()
    try:
        yield building
        # Only an empty folder can be replaced in one step, so the old one is moved away first.
        old = place.with_name(f".{place.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            os.replace(place, old)
        os.replace(building, place)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
