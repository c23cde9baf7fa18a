"""Load `kd serve` on this machine: requests a second and latencies, in batches and one text at a time.

    python benchmarks/serving.py RUN|EXPORT [--clients 1 16 64 1000] [--seconds 5] [--rounds 2]
    python benchmarks/serving.py RUN|EXPORT --soak 600

Two servers take turns, so that noise hits both alike: one with the defaults of `kd serve`, and one that reads one text
at a time and waits for no other. Each client has one connection and sends a text of the length of a movie review
sentence as soon as it has its last answer. A client that gets 429 waits for 50 ms. The clients run in another process
on the same cores. Times are seen by the client.

``--soak SECONDS`` sends one server good requests, mistakes, bodies of 10 MB, and clients that leave or are slow, and
prints its memory, open files and waiting texts while it does so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress

import numpy as np
from rich.console import Console
from rich.table import Table

WORDS = ["the", "film", "plot", "story", "is", "very", "and", "with", "wonderful", "charming", "dull", "tedious"]
SERVERS = {"batches": [], "one text at a time": ["--batch-size", "1", "--batch-wait", "0"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64, 1000])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    options = parser.parse_args()
    if options.soak:
        with serving(options.model, []) as port:
            asyncio.run(soak(port, options.soak))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("server")
    for name in ("clients", "requests/s", "p50 ms", "p99 ms", "texts in a batch", "429"):
        table.add_column(name, justify="right")
    with serving(options.model, SERVERS["batches"]) as first, serving(options.model, [*SERVERS.values()][1]) as second:
        ports = dict(zip(SERVERS, (first, second), strict=True))
        for clients in options.clients:
            times, statuses, batches, walls = ({name: [] for name in ports} for _ in range(4))
            for _ in range(options.rounds):
                for name, port in ports.items():
                    found = asyncio.run(load(port, clients, options.seconds, times[name], statuses[name]))
                    batches[name].append(found[0])
                    walls[name].append(found[1])
            for name in ports:
                p50, p99 = np.percentile(times[name], (50, 99)) * 1000
                rate = len(times[name]) / sum(walls[name])
                refused = Counter(statuses[name])[429]
                mean = f"{np.mean(batches[name]):.1f}"
                table.add_row(name, str(clients), f"{rate:.0f}", f"{p50:.1f}", f"{p99:.1f}", mean, str(refused))
    Console().print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    Console().print(table)


@contextmanager
def serving(model: str, options: list[str]):
    """Give the port of a new server."""
    command = [sys.executable, "-m", "kd", "serve", model, "--port", "0", *options]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.PIPE, text=True)
        try:
            lines = []
            while not (port := re.search(r"http://127\.0\.0\.1:(\d+) ", "".join(lines))):
                lines.append(server.stderr.readline() or sys.exit("".join(lines)))  # libraries may warn before
            yield int(port[1])
        finally:
            server.terminate()
            server.communicate()
            print(f"exit code of the server: {server.returncode}", file=sys.stderr)


def request(body: bytes, path: str = "/predict") -> bytes:
    length = len(body)
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        *(path.encode(), length),
        body,
    )


def text() -> bytes:
    return request(json.dumps({"texts": " ".join(random.choices(WORDS, k=random.randint(8, 34)))}).encode())


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
    return int(head.split(None, 2)[1]), await reader.readexactly(length)


async def metric(port: int, *names: str) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    lines = (await answer(reader))[1].decode().splitlines()
    writer.close()
    return [float(next(line for line in lines if line.startswith(name + " ")).split()[1]) for name in names]


async def load(port: int, clients: int, seconds: float, times: list, statuses: list) -> tuple[float, float]:
    """Add the seconds and the status of every request; return the mean size of the batches, and the seconds in all."""
    ready = asyncio.Barrier(clients)
    names = "kd_batch_texts_sum", "kd_batch_texts_count"
    before = await metric(port, *names)

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ready.wait()
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            writer.write(text())
            status, _ = await answer(reader)
            statuses.append(status)
            if status == 200:
                times.append(time.perf_counter() - start)
            else:
                await asyncio.sleep(0.05)
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))  # the last ones end after the time is over
    wall = time.perf_counter() - start
    texts, count = np.subtract(await metric(port, *names), before)
    return texts / count, wall


async def soak(port: int, seconds: float) -> None:
    """Mix good and bad clients, and print what the server holds."""
    end, statuses = time.monotonic() + seconds, Counter()
    bad = [b"{", b'{"texts": "\xff"}', b'{"texts": 5}', b"[" * 100_000, b'{"texts": "' + b"a" * 10_000_000 + b'"}']

    async def client(kind: int) -> None:
        while time.monotonic() < end:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                if kind < 10:  # good ones, and a mistake now and then
                    for number in range(200):
                        writer.write(text() if number else request(random.choice(bad)))
                        statuses[(await answer(reader))[0]] += 1
                elif kind == 10:  # leaves in the middle
                    writer.write(text()[: random.randint(1, 150)])
                    await asyncio.sleep(0.05)
                else:  # never finishes
                    writer.write(text()[: random.randint(1, 150)])
                    await asyncio.wait_for(reader.read(), 60)
                writer.close()

    async def watch() -> None:
        while True:
            names = "process_resident_memory_bytes", "process_open_fds", "kd_waiting_texts"
            memory, files, waiting = await metric(port, *names)
            passed = seconds - max(0, end - time.monotonic())
            print(
                f"{passed:5.0f} s  {memory / 2**20:6.1f} MiB  {files:4.0f} files  {waiting:4.0f} texts wait", flush=True
            )
            if time.monotonic() > end + 12:  # the slow ones are cut off after 10 s
                return
            await asyncio.sleep(min(seconds / 10, 30))

    await asyncio.gather(watch(), *(client(kind) for kind in [*range(10), 10, *[11] * 20]))
    print(dict(sorted(statuses.items())))


if __name__ == "__main__":
    main()
