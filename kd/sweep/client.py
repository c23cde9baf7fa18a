"""The sweep's side of its fork server: start it, send requests, receive events."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from kd.errors import KDError
from kd.sweep.queue import Ended, Queue, Started

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); sys.argv[0] = 'kd'; "  # by this name kd imports no torch
    "from kd.runtime.ranks import die_with_parent; die_with_parent(int(sys.argv[2])); "  # also during the imports below
    "from kd.sweep.server import main; main(int(sys.argv[3]), sys.argv[4], sys.argv[5:])"
)


class ForkServer(Queue):
    """A process that imports everything and then forks the jobs; see `kd.sweep.server`.

    Args:
        entry: ``module:function`` that a job calls with its arguments.
        preload: modules to import before the first job.
        log: file for the server's own output.
    """

    def __init__(self, entry: str, preload: list[str], log: Path) -> None:
        ours, theirs = socket.socketpair()
        # The server has a session of its own, so Ctrl-C reaches only the sweep, which then ends its jobs in order.
        with log.open("ab") as output:
            arguments = [json.dumps(sys.path), str(os.getpid()), str(theirs.fileno()), entry, *preload]
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        theirs.close()
        self.connection, self.log = ours, log
        self.unread = b""
        self.groups: dict[int, int] = {}
        """Process groups of the running jobs, by job number."""

    def start(self, job: int, arguments: list[str], log: Path, environment: Mapping[str, str], threads: int) -> None:
        self._send(start=job, arguments=arguments, log=str(log), environment=dict(environment), threads=threads)

    def warm(self, function: str, argument: dict[str, Any]) -> None:
        self._send(**{"warm": function, "with": argument})

    def stop(self, job: int, number: int) -> None:
        self._send(stop=job, signal=number)

    def wait(self, timeout: float) -> None:
        select.select([self.connection], [], [], max(0.0, timeout))

    def events(self) -> Iterator[Started | Ended]:
        """Yield the events since the last call.

        Raises:
            KDError: the server has ended.
        """
        if not select.select([self.connection], [], [], 0)[0]:
            return
        try:
            found = self.connection.recv(1 << 16)
        except ConnectionError:
            found = b""
        if not found:
            self._raise_ended()
        *lines, self.unread = (self.unread + found).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "started" in message:
                self.groups[message["started"]] = message["pid"]
                yield Started(message["started"])
            elif "ended" in message:
                self.groups.pop(message["ended"], None)
                yield Ended(message["ended"], message["code"])

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.connection.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self._kill_groups()

    def _send(self, **request: Any) -> None:
        try:
            self.connection.sendall(json.dumps(request).encode() + b"\n")
        except (ConnectionError, BrokenPipeError):
            self._raise_ended()

    def _raise_ended(self) -> NoReturn:
        code = self.process.wait()
        self._kill_groups()
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.is_file() else []
        last = f": {lines[-1]}" if lines and code > 0 else ""
        raise KDError(
            f"the process that starts the sweep's jobs ended with code {code}{last}; see '{self.log}', and repeat the "
            "command to resume the sweep"
        )

    def _kill_groups(self) -> None:
        for group in self.groups.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self.groups.clear()
