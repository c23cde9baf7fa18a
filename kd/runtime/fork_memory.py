"""What a process has made once for the runs that will ask for it: those that a sweep's fork server forks.

Outside `keeping` nothing is kept, so that a run reads its files anew.
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
    """Keep what is made meanwhile, for this process and those that it forks."""
    global _keeping
    before, _keeping = _keeping, True
    try:
        yield
    finally:
        _keeping = before


def once(kind: str, key: Callable[[], str], make: Callable[[], Made]) -> Made:
    """What was made before for this key, or what is made now.

    Args:
        kind: of thing; keys of two kinds may be equal.
        key: names all that decides the result; asked only where something is kept.
        make: makes it. Whoever gets it must not change it.
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


def forget() -> None:
    """Keep nothing any longer."""
    _KEPT.clear()
