"""Read and write small files: a reader never finds half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd.errors import KDError
from kd.storage.locks import mark


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from disk.

    Raises:
        KDError: where there is none.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise KDError(f"expected a JSON file at '{path}', found none that can be read: {error}") from error
    if not isinstance(content, dict):
        raise KDError(f"expected a JSON object in '{path}', found a {type(content).__name__}")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step, so that a reader never meets half of it."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, content: str) -> None:
    """Replace a text file in one step."""
    temporary = path.with_name(f".{path.name}.{mark()}")
    temporary.write_text(content)
    os.replace(temporary, path)
