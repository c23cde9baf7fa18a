"""Check names and relative paths from a configuration, so that none leads out of its folder. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kd.errors import KDError


def plain_name(name: Any, key: str) -> str:
    """Return a name for one folder or file, as text.

    Args:
        name: the value in the configuration.
        key: the key of the value, for the error message.

    Raises:
        KDError: the name is empty, or is a path.
    """
    text = str(name)
    if text in ("", ".", "..") or not text.isprintable() or set(text) & set("/\\|"):
        raise KDError(f"{key}: expected a plain name, without / \\ |, got {text!r}; choose another")
    return text


def inside(folder: Path, part: Any, key: str) -> Path:
    """Return the absolute path of a part of a folder. Symbolic links are not followed.

    Args:
        folder: where the part must be.
        part: a relative path.
        key: the key of the part in the configuration, for the error message.

    Raises:
        KDError: the path leads out of the folder.
    """
    base = os.path.abspath(folder)
    place = os.path.abspath(os.path.join(base, str(part)))
    if place != base and not place.startswith(base + os.sep):
        raise KDError(f"{key}: expected a place in '{folder}', got '{part}', which leads out of it; give a name alone")
    return Path(place)
