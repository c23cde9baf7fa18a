"""Ask the teacher of a cascade about a sample of the texts, after they were answered, and report what it says."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from kd.serving.observation import LOG

if TYPE_CHECKING:  # it needs scipy, which a server without a cascade does not have
    from kd.cascade.audit import Audit

WAITING = 256
"""Sampled texts that may wait for the teacher; more are left out of the audit."""
NICE = 10
"""What is added to the niceness of the teacher's thread, so that the answers have priority."""
FAILURES = 3
"""Failures of the teacher in a row that raise an alarm; it ends when the teacher answers."""
BOUNDS = ("value", "low", "high")


class Sampled(NamedTuple):
    """A sampled text, the label that it got, and the teacher's probabilities where the teacher answered it."""

    text: str
    label: str
    teacher: Mapping[str, float] | None


class Auditor:
    """Audits the texts of a server. All methods are called in one event loop; the teacher has a thread of its own.

    A text that does not fit into the queue is left out whoever answered it, so that the sample stays unbiased.

    Args:
        audit: the sample, the agreement and the alarms.
        stages: the names of who can answer: students, teacher, and perhaps the fallback.
        ask: gives the teacher's probabilities for a text; used by one thread only.
    """

    def __init__(self, audit: Audit, stages: list[str], ask: Callable[[str], Mapping[str, float]]) -> None:
        self.audit, self.stages, self.ask = audit, stages, ask
        self.numbers = {"texts": 0, "audited": 0, "differing": 0, "left_out": 0, "failed": 0}
        self.failures = 0

    def start(self, registry: CollectorRegistry) -> None:
        """Begin to ask the teacher, and put the results into the metrics."""
        self._queue = asyncio.Queue[Sampled](WAITING)
        self._thread = ThreadPoolExecutor(1, "teacher", _be_nice)
        self._task = asyncio.create_task(self._work())
        of_server: dict[str, Any] = {"namespace": "kd", "registry": registry}
        self._alarm = Gauge("alarm", "1 if the audit has raised an alarm.", ["about"], **of_server)
        agreement = Gauge("agreement", "Agreement with the teacher, and its interval.", ["bound"], **of_server)
        for place, bound in enumerate(BOUNDS):
            agreement.labels(bound).set_function(partial(self._bound, place))
        self._counter = Counter("audit_texts", "Sampled texts, by what became of them.", ["result"], **of_server)
        self._raised = {"agreement": False, "inputs": False, "teacher": False}
        self._show_alarms()

    def see(self, text: str, label: str, probabilities: Mapping[str, float], by: str) -> None:
        """Count an answer, and sample it or not."""
        stage = self.stages.index(by)
        self.numbers["texts"] += 1
        self.audit.count(min(stage, self.stages.index("teacher")))  # a fallback answers what the teacher should
        if self.audit.samples():
            try:
                self._queue.put_nowait(Sampled(text, label, probabilities if by == "teacher" else None))
            except asyncio.QueueFull:
                self._note("left_out")
        self._show_alarms()

    async def report(self) -> dict[str, Any]:
        """Return the content of ``/audit``."""
        agreement = self.audit.agreement()
        return {
            **{"share": self.audit.share, "kind": self.audit.record["kind"], "floor": self.audit.floor},
            **{**self.numbers, "unkept": self.audit.unkept, "waiting": self._queue.qsize()},
            "agreement": agreement and dict(zip(BOUNDS, agreement, strict=True)),
            "alarms": self.alarms(),
        }

    def alarms(self) -> list[str]:
        """Return a sentence for each alarm."""
        teacher = ["the teacher fails, so that nothing is audited; the log says where"]
        return [*self.audit.alarms(), *teacher * (self.failures >= FAILURES)]

    async def close(self) -> None:
        """Ask no more; texts that wait are left out."""
        self._task.cancel()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sampled = await self._queue.get()
            try:
                agrees = await loop.run_in_executor(self._thread, self._compare, sampled)
            except Exception as error:
                self.failures += 1
                if self.failures == 1:  # not for each text: it may fail for hours
                    LOG.error("the teacher failed with an audited text", exc_info=error)
                self._note("failed")
            else:
                self.failures = 0
                self.numbers["differing"] += not agrees
                self._note("audited")
            self._show_alarms()

    def _compare(self, sampled: Sampled) -> bool:
        """Ask the teacher where it has not answered, and compare. This may wait for a disk, so a thread does it."""
        teacher = self.ask(sampled.text) if sampled.teacher is None else sampled.teacher
        return self.audit.compare(sampled.text, sampled.label, teacher)

    def _bound(self, place: int) -> float:
        return (self.audit.agreement() or (math.nan,) * len(BOUNDS))[place]

    def _note(self, result: str) -> None:
        self.numbers[result] += 1
        self._counter.labels(result).inc()

    def _show_alarms(self) -> None:
        found = {"agreement": self.audit.agreement_drift, "inputs": self.audit.inputs_drift}
        found["teacher"] = self.failures >= FAILURES
        for about, raised in found.items():
            self._alarm.labels(about).set(raised)
            if raised != self._raised[about]:
                fields = {"about": about, "alarms": self.alarms()}
                LOG.warning("alarm" if raised else "end of an alarm", extra={"fields": fields})
        self._raised = found


def _be_nice() -> None:
    """Give the threads of the answers priority. On Linux, each thread has a niceness of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICE)
