"""Work that comes in pieces, divided among whatever processes are at it. Needs no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from filelock import Timeout

from kd.storage.locks import lock


def share(folder: Path, pieces: int, done: Callable[[int], bool], build: Callable[[int], None]) -> None:
    """Build pieces, together with whatever other processes are at it: who claims one first builds it.

    A claim is a lock (`kd.storage.locks`), which ends with its process: the others take over what it left.

    Args:
        folder: where the claims stand; one for all processes.
        pieces: how many there are.
        done: whether a piece is there.
        build: makes it so.
    """
    waiting = [piece for piece in range(pieces) if not done(piece)]
    while waiting:
        left = []
        for piece in waiting:
            try:
                with lock(Path(folder) / f"{piece:06}", timeout=0):
                    if not done(piece):
                        build(piece)
            except Timeout:
                left.append(piece)
        if len(left) == len(waiting):
            time.sleep(0.1)
        waiting = [piece for piece in left if not done(piece)]
