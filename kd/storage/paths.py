"""Names that become parts of paths stay names: none of them leaves the folder that it stands in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kd.errors import KDError


def plain_name(name: Any, key: str) -> str:
    """A name for one folder or file.

    Args:
        name: as a configuration has it.
        key: where it stands, for the message.

    Raises:
        KDError: an empty one, or one that is more than a name.
    """
    text = str(name)
    if text in ("", ".", "..") or not text.isprintable() or set(text) & set("/\\|"):
        raise KDError(f"{key}: expected a plain name, without / \\ |, got {text!r}; choose another")
    return text


def inside(folder: Path, part: Any, key: str) -> Path:
    """A place in a folder, by a relative path; symbolic links are not followed.

    Raises:
        KDError: the path leads out of the folder.
    """
    base = os.path.abspath(folder)
    place = os.path.abspath(os.path.join(base, str(part)))
    if place != base and not place.startswith(base + os.sep):
        raise KDError(f"{key}: expected a place in '{folder}', got '{part}', which leads out of it; give a name alone")
    return Path(place)
