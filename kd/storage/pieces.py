"""Divide work that comes in pieces among several processes. Needs no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from filelock import Timeout

from kd.storage.locks import lock


def share(folder: Path, pieces: int, done: Callable[[int], bool], build: Callable[[int], None]) -> None:
    """Build all pieces, together with other processes that call this for the same folder.

    A process locks a piece (`kd.storage.locks`) while it builds it. The lock of a killed process becomes free, and
    another process builds that piece.

    Args:
        folder: where the locks are kept; the same for all processes.
        pieces: number of pieces.
        done: returns whether a piece is finished.
        build: builds a piece, after which ``done`` is true.
    """
    waiting = [piece for piece in range(pieces) if not done(piece)]
    while waiting:
        left = []
        for piece in waiting:
            try:
                with lock(Path(folder) / f"{piece:06}", timeout=0):
                    if not done(piece):
                        build(piece)
            except Timeout:  # another process builds it
                left.append(piece)
        if len(left) == len(waiting):
            time.sleep(0.1)
        waiting = [piece for piece in left if not done(piece)]
