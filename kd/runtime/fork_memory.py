"""Objects that a sweep's fork server makes a single time and keeps in memory for the runs that it forks.

Outside `keeping` nothing is kept, so an ordinary run always reads its files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Made = TypeVar("Made")

_KEPT: dict[tuple[str, str], Any] = {}
_keeping = False


@contextmanager
def keeping() -> Iterator[None]:
    """Keep the objects that `get_or_make` makes within this context, for this process and those that it forks."""
    global _keeping
    before, _keeping = _keeping, True
    try:
        yield
    finally:
        _keeping = before


def get_or_make(kind: str, key: Callable[[], str], make: Callable[[], Made]) -> Made:
    """Return the object that was kept for this key, or make it. The caller must not change it.

    Args:
        kind: kind of object; objects of two kinds may have the same key.
        key: returns a text that names everything that affects the object; called only if something is kept.
        make: makes the object.
    """
    if not (_KEPT or _keeping):
        return make()
    name = (kind, key())
    if name in _KEPT:
        return _KEPT[name]
    made = make()
    if _keeping:
        _KEPT[name] = made
    return made
