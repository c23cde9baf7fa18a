"""Run the application on uvicorn until SIGTERM or Ctrl-C, and then answer what it has taken."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from kd.classifier import Classifier
from kd.errors import KDError
from kd.serving.app import create_app
from kd.serving.auditing import Auditor
from kd.serving.limits import Limits
from kd.serving.observation import LOG, log_to


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Clients that connect before the model is loaded wait for it.

    Raises:
        KDError: the port is in use, or the host has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise KDError(
            f"cannot listen on {host} port {port}: {reason}; choose another --host or --port, or stop what uses it"
        ) from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it on sockets of its own only
    return listener


def run(
    classifier: Classifier,
    listener: socket.socket,
    limits: Limits,
    log_texts: bool = False,
    auditor: Auditor | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    classifier.probabilities(["a first text"])  # which is slower than the next ones
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # a connection is a file; many systems allow 1,024 at first
    wanted = limits.max_connections + 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted if hard < 0 else min(hard, wanted)), hard))
    log_to(sys.stdout)
    config = uvicorn.Config(
        create_app(classifier, limits, log_texts, auditor),
        http=_with_time_limit(limits.read_seconds),
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.max_connections,
        timeout_graceful_shutdown=limits.stop_seconds,
    )
    for each in (signal.SIGTERM, signal.SIGINT):  # uvicorn stops, and raises the signal again at its end
        signal.signal(each, lambda *_: None)
    host, port = listener.getsockname()[:2]
    LOG.info("started", extra={"fields": {"host": host, "port": port, "labels": classifier.label_names}})
    uvicorn.Server(config).run(sockets=[listener])
    LOG.info("stopped")


def _with_time_limit(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with a time limit for the head of a request, which uvicorn does not have."""

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        checked: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.timer = self.loop.call_later(seconds, self.check)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.timer.cancel()

        def check(self) -> None:
            """Close the connection if no head came since the last check, and no request is being answered."""
            if self.cycle is self.checked and (self.cycle is None or self.cycle.response_complete):
                self.transport.close()
            self.checked, self.timer = self.cycle, self.loop.call_later(seconds, self.check)

    return Protocol
