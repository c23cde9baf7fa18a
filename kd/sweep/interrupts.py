"""Signals that interrupt a sweep: Ctrl-C, ``kill``, a closed terminal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | None


class Interrupts:
    """A context in which a signal raises only at the places where the sweep waits (`allowed`).

    A signal that arrives elsewhere, such as while the end of a job is written down, raises when the sweep waits next,
    or at the end of the context. Further signals are only counted.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        """Numbers of the signals so far."""
        self.raising = False
        self.before: dict[int, Handler] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            # An ignored signal, such as SIGHUP under nohup, stays ignored.
            numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            caught = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
            self.before = {number: signal.signal(number, self._receive) for number in caught}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.received and error is None:
            raise self._error()

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Let signals raise here."""
        try:
            self.raising = True
            if self.received:
                raise self._error()
            yield
        finally:
            self.raising = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if self.raising:
            self.raising = False
            raise self._error()

    def _error(self) -> BaseException:
        first = self.received[0]
        return KeyboardInterrupt() if first == signal.SIGINT else SystemExit(128 + first)

    def cause(self, error: BaseException) -> str:
        """Return a short name of what ended the sweep."""
        if not self.received:
            return type(error).__name__
        return "Ctrl-C" if self.received[0] == signal.SIGINT else signal.Signals(self.received[0]).name
