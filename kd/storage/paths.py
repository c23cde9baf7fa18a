"""Check names and paths from files, so that none leads out of its folder. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kd.errors import KDError


def plain_name(name: Any, key: str) -> str:
    """Return the name of one folder or file, as text.

    Raises:
        KDError: the name is empty, or is a path. The message names the ``key`` in the configuration.
    """
    text = str(name)
    if text in ("", ".", "..") or not text.isprintable() or set(text) & set("/\\|"):
        raise KDError(f"{key}: expected a plain name, without / \\ |, got {text!r}; choose another")
    return text


def refuse_link(folder: Path, place: Path) -> None:
    """Refuse to write to a place below a folder if a symbolic link on the way leads out of the folder.

    The folder itself may be a link: who names it decides where it lies.

    Raises:
        KDError: naming the link.
    """
    root, way = Path(folder).resolve(), Path(folder)
    for part in Path(os.path.abspath(place)).relative_to(os.path.abspath(folder)).parts:
        way = way / part
        if way.is_symlink() and not way.resolve().is_relative_to(root):
            raise KDError(
                f"expected a place in '{folder}', found the link '{way}', which leads out of it to '{way.resolve()}'; "
                "remove the link, or name another folder"
            )
