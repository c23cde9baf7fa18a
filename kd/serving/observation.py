"""Count and log the requests: metrics for Prometheus, and one line of JSON for each request."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("kd.serving")


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        of_server: dict[str, Any] = {"namespace": "kd", "registry": self.registry}
        sizes = [2**power for power in range(11)]
        self.requests = Counter("requests", "Requests that were answered.", ["path", "status"], **of_server)
        self.seconds = Histogram("request_seconds", "Seconds from the head of a request to its answer.", **of_server)
        self.predictions = Counter("predictions", "Texts that got a label.", ["label", "by"], **of_server)
        self.batch_texts = Histogram("batch_texts", "Texts of a batch.", buckets=sizes, **of_server)
        self.batch_seconds = Histogram("batch_seconds", "Seconds of a batch in the model.", **of_server)
        self.waiting = Gauge("waiting_texts", "Texts that wait for the model or are in it.", **of_server)

    def on_batch(self, texts: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_texts.observe(texts)
        self.batch_seconds.observe(seconds)


class Observed:
    """An application that counts and logs each request of another one.

    Args:
        app: the other application.
        metrics: where requests are counted.
        paths: those of the application; others are counted as "other", because a client may invent any number of them.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the other application does."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, start = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - start
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.requests.labels(path, status).inc()
            if path == "/predict":
                self.metrics.seconds.observe(seconds)
            fields = {"method": scope["method"], "path": path, "status": status, "seconds": round(seconds, 6)}
            LOG.info("request", extra={"fields": fields | scope.get("state", {}).get("log", {})})


class JSONLines(logging.Formatter):
    """Write a record as one line of JSON. Messages of exceptions are left out, because they may quote a text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage().strip()}
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            line["at"] = "".join(traceback.format_tb(record.exc_info[2]))
        return json.dumps(line)


def log_to(stream: Any) -> None:
    """Send the records of all loggers to a stream: requests, and the warnings of others."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    LOG.setLevel(logging.INFO)
