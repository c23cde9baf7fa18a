"""The sweep's side of its fork server: start it, ask it for jobs, hear of their ends."""

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
from typing import Any

from kd.errors import KDError

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); sys.argv[0] = 'kd'; "  # for which kd imports nothing yet
    "from kd.runtime.ranks import die_with_parent; die_with_parent(int(sys.argv[2])); "  # while it imports the rest
    "from kd.sweep.server import main; main(int(sys.argv[3]), sys.argv[4], sys.argv[5:])"
)


class ForkServer:
    """A process that has paid the imports and forks jobs; see `kd.sweep.server`.

    Args:
        entry: ``module:function`` that a job calls with its arguments.
        preload: modules to import before the first job.
        log: what the server itself prints.
    """

    def __init__(self, entry: str, preload: list[str], log: Path):
        ours, theirs = socket.socketpair()
        # A session of its own: Ctrl-C is for the sweep, which ends its jobs in order.
        with log.open("ab") as printed:
            arguments = [json.dumps(sys.path), str(os.getpid()), str(theirs.fileno()), entry, *preload]
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                start_new_session=True,
            )
        theirs.close()
        self.connection, self.log = ours, log
        self.unread = b""
        self.groups: dict[int, int] = {}
        """Process groups of the jobs that run, by job."""

    def start(self, job: int, arguments: list[str], log: Path, environment: Mapping[str, str], threads: int) -> None:
        """Ask for a job."""
        self._say(start=job, arguments=arguments, log=str(log), environment=dict(environment), threads=threads)

    def warm(self, function: str, argument: dict[str, Any]) -> None:
        """Have ``module:function`` called before the next job is forked, for what it leaves in memory."""
        self._say(**{"warm": function, "with": argument})

    def stop(self, job: int, number: int) -> None:
        """Send a job a signal; SIGKILL ends all that it has started. One that waits to be forked is not forked."""
        self._say(stop=job, signal=number)

    def wait(self, timeout: float) -> None:
        """Until there is something to be heard, at most so many seconds."""
        select.select([self.connection], [], [], max(0.0, timeout))

    def heard(self) -> Iterator[dict[str, Any]]:
        """What the server has said meanwhile.

        Raises:
            KDError: the server is gone.
        """
        if not select.select([self.connection], [], [], 0)[0]:
            return
        try:
            found = self.connection.recv(1 << 16)
        except ConnectionError:
            found = b""
        if not found:
            self._gone()
        *lines, self.unread = (self.unread + found).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "started" in message:
                self.groups[message["started"]] = message["pid"]
            elif "ended" in message:
                self.groups.pop(message["ended"], None)
            yield message

    def kill(self) -> None:
        """End a server that has forked nothing, whatever it does."""
        self.process.kill()

    def close(self) -> None:
        """End the server and whatever still runs."""
        self.connection.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self._end_groups()

    def _say(self, **message: Any) -> None:
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except (ConnectionError, BrokenPipeError):
            self._gone()

    def _gone(self) -> None:
        code = self.process.wait()
        self._end_groups()
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.is_file() else []
        last = f": {lines[-1]}" if lines and code > 0 else ""
        raise KDError(
            f"the process that starts the sweep's jobs ended with code {code}{last}; see '{self.log}', and repeat the "
            "command: it goes on where it was"
        )

    def _end_groups(self) -> None:
        for group in self.groups.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self.groups.clear()
