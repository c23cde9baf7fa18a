"""Collect the texts of many requests into batches. The model reads them in a thread of its own."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from kd.serving.limits import Limits

Read = Callable[[Sequence[str], int], Sequence[Any]]
"""Takes texts and the size of a batch, and gives an answer to each text."""


class Full(Exception):
    """There is no room for more texts; ``seconds`` says when there may be."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds


class Job(NamedTuple):
    """The texts of one request, the time until which they may wait, and where their answers go."""

    texts: Sequence[str]
    until: float
    future: asyncio.Future[Sequence[Any]]


class Batcher:
    """Classify texts in batches. All methods are called in one event loop.

    A batch begins when its texts are enough, or when its oldest request has waited long enough. So a busy server,
    whose requests come while it reads the last batch, does not wait at all.

    Args:
        read: called by one thread only.
        limits: size of a batch, time to wait for it, and number of texts that may wait.
        on_batch: called after each batch with its number of texts and its seconds.
    """

    def __init__(self, read: Read, limits: Limits, on_batch: Callable[[int, float], None]) -> None:
        self.read, self.limits, self.on_batch = read, limits, on_batch
        self.waiting = self._queued = 0
        self._jobs: deque[Job] = deque()
        self._arrived, self._enough = asyncio.Event(), asyncio.Event()
        self._closed, self._seconds_a_text = False, 0.0
        self._thread = ThreadPoolExecutor(1, "model")
        self._task = asyncio.create_task(self._work())

    @property
    def ready(self) -> bool:
        """Return whether texts are answered."""
        return not self._closed and not self._task.done()

    async def classify(self, texts: Sequence[str]) -> Sequence[Any]:
        """Return the answers to texts.

        Raises:
            Full: the texts do not fit beside those that wait, or no more are taken.
        """
        if self._task.done():  # else the request would wait for ever
            raise Full(1)
        if self.waiting + len(texts) > self.limits.max_waiting:
            raise Full(max(1, math.ceil(self.waiting * self._seconds_a_text)))
        loop = asyncio.get_running_loop()
        self._jobs.append(job := Job(texts, loop.time() + self.limits.batch_wait / 1000, loop.create_future()))
        self.waiting, self._queued = self.waiting + len(texts), self._queued + len(texts)
        self._arrived.set()
        if self._queued >= self.limits.batch_size:
            self._enough.set()
        return await job.future

    async def close(self) -> None:
        """Return when all texts are answered."""
        self._closed = True
        self._arrived.set()
        self._enough.set()
        await self._task
        self._thread.shutdown()

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._jobs:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._jobs[0].until):
                    await self._enough.wait()
            jobs, count = list[Job](), 0
            while self._jobs and count < self.limits.batch_size:
                jobs.append(self._jobs.popleft())
                count += len(jobs[-1].texts)
            self._queued -= count
            if not self._closed:
                if self._queued < self.limits.batch_size:
                    self._enough.clear()
                if not self._jobs:
                    self._arrived.clear()
            start = time.perf_counter()
            await self._answer(jobs)
            seconds = time.perf_counter() - start
            self.waiting, self._seconds_a_text = self.waiting - count, seconds / count
            self.on_batch(count, seconds)

    async def _answer(self, jobs: list[Job]) -> None:
        """Set the results of jobs. If a batch fails, each request is tried alone: one text must not fail the others."""
        texts = [text for job in jobs for text in job.texts]
        try:
            loop, size = asyncio.get_running_loop(), self.limits.batch_size
            rows = await loop.run_in_executor(self._thread, self.read, texts, size)
        except Exception as error:
            for job in jobs:
                if len(jobs) > 1:
                    await self._answer([job])
                elif not job.future.done():
                    job.future.set_exception(error)
            return
        for job in jobs:
            if not job.future.done():  # it is, if the request was cancelled
                job.future.set_result(rows[: len(job.texts)])
            rows = rows[len(job.texts) :]
