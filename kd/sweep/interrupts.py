"""What ends a sweep before its time: Ctrl-C, ``kill``, a closed terminal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

WORDS = {signal.SIGINT: "Ctrl-C"}


class Interrupts:
    """Signals that end the sweep in order, as a context: they raise where it waits and nowhere else.

    A signal that comes while a job's end is written down, say, is raised when the sweep next waits, or at the end of
    the context; one that comes after it has raised is counted only.
    """

    def __init__(self):
        self.sent: list[int] = []
        """The signals that came."""
        self.raising = False
        self.before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            # One that is ignored, as SIGHUP is under nohup, stays ignored.
            kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            heard = [one for one in kinds if signal.getsignal(one) != signal.SIG_IGN]
            self.before = {number: signal.signal(number, self._come) for number in heard}
        return self

    def __exit__(self, kind, error, trace) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.sent and error is None:
            raise self._error()

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Where the sweep waits."""
        try:
            self.raising = True
            if self.sent:
                raise self._error()
            yield
        finally:
            self.raising = False

    def _come(self, number, frame) -> None:
        self.sent.append(number)
        if self.raising:
            self.raising = False
            raise self._error()

    def _error(self) -> BaseException:
        return KeyboardInterrupt() if self.sent[0] == signal.SIGINT else SystemExit(128 + self.sent[0])

    def said(self, error: BaseException) -> str:
        """What ended the sweep, in a word."""
        if not self.sent:
            return type(error).__name__
        return WORDS.get(self.sent[0], signal.Signals(self.sent[0]).name)
