"""A real server in a process of its own: clients that are slow, many or rude, and the stop."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from http.client import HTTPResponse

import pytest

from kd.errors import KDError
from kd.serving.server import listen


def test_answers_are_sent_at_once():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:  # without it, a small answer waits for 40 ms for the client's acknowledgement
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class Server:
    """``kd serve`` on a free port."""

    def __init__(self, model, *options: str) -> None:
        command = [sys.executable, "-m", "kd", "serve", str(model), "--port", "0", *options]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  no pipe: it would be full after some hundred requests
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.PIPE, text=True)
        said = iter(self.process.stderr.readline, "")  # libraries may warn before
        self.port = next(int(found[1]) for line in said if (found := re.search(r"http://127\.0\.0\.1:(\d+) ", line)))

    def ask(self, body: bytes, path: str = "/predict") -> tuple[int, dict]:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(name + " ")).split()[1])

    def stop(self) -> None:
        """Stop the server; it must have had no error, and say so."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        self.log.seek(0)
        lines = [json.loads(line) for line in self.log]
        self.log.close()
        assert self.process.returncode == 0 and "Traceback" not in errors
        assert lines[0]["event"] == "started" and lines[-1]["event"] == "stopped"
        assert not any("error" in line or line["level"] == "error" for line in lines)


@pytest.fixture(scope="module")
def server(teacher_folder):
    server = Server(teacher_folder, "--read-seconds", "1")
    yield server
    server.stop()


def head(length: int) -> bytes:
    return b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % length


def rest(client: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    return b"".join(iter(lambda: client.recv(1000), b""))


def answers_still(server: Server) -> bool:
    return server.ask(b'{"texts": "film"}')[0] == 200


def test_a_body_of_10_mb_gets_413(server):
    status, answer = server.ask(b'{"texts": "' + b"a" * 10_000_000 + b'"}')
    assert status == 413 and "at most 1048576 bytes" in answer["detail"] and answers_still(server)


def test_a_body_in_chunks_has_the_same_limit(server):
    with server.connect() as client:
        client.sendall(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        for _ in range(32):
            client.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b'{"texts": "\xff\xfe"}', 400), (b"{", 400), (b"\x00" * 9, 400), (b'{"texts": "a", "texts": 1}', 422)],
    ids=["no UTF-8", "half", "zeros", "a key twice"],
)
def test_a_malformed_body_gets_one_sentence(server, sent, status):
    found, answer = server.ask(sent)
    assert found == status and answer["detail"] and answers_still(server)


def test_what_is_no_http_is_refused(server):
    with server.connect() as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert answers_still(server)


def test_a_slow_body_gets_408_and_a_slow_head_is_cut_off(server):
    with server.connect() as body, server.connect() as begun, server.connect() as silent:
        body.sendall(head(100) + b'{"texts"')
        begun.sendall(b"POST /predict HTTP/1.1\r\nHost:")
        assert answers_still(server)  # they hold up nobody
        answer = rest(body)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"within 1.0 s" in answer
        start = time.monotonic()
        assert begun.recv(1000) == b"" and silent.recv(1000) == b""
        assert time.monotonic() - start < 10


def test_a_slow_second_head_is_cut_off_too(server):
    asked = head(17) + b'{"texts": "film"}'
    with server.connect() as client:
        for _ in range(2):
            client.sendall(asked)
            answer = HTTPResponse(client)
            answer.begin()
            assert answer.status == 200 and answer.read()
        start, received = time.monotonic(), b"x"
        while received and time.monotonic() - start < 20:
            client.settimeout(0.2)
            try:
                client.sendall(b"P")  # a byte now and then
                received = client.recv(1000)
            except TimeoutError:
                continue
            except (ConnectionError, BrokenPipeError):
                break
        assert time.monotonic() - start < 10


def test_a_client_that_leaves_is_no_error(server):
    for sent in (head(100) + b'{"texts"', head(17) + b'{"texts": "film"}'):
        with server.connect() as client:
            client.sendall(sent)
    assert answers_still(server)


@pytest.mark.parametrize(("waiting", "expected"), [(2000, {200}), (300, {200, 429})])
@pytest.mark.slow
def test_1000_clients_at_once_all_get_an_answer(teacher_folder, waiting, expected):
    """Each has a connection of its own, and all of them send before one is answered."""
    server = Server(teacher_folder, "--max-waiting", str(waiting))
    body = b'{"texts": "a very dull film"}'

    async def client(ready: asyncio.Barrier) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await ready.wait()
        writer.write(head(len(body)) + body)
        found = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return found

    async def many() -> list[bytes]:
        ready = asyncio.Barrier(1000)
        return await asyncio.gather(*(client(ready) for _ in range(1000)))

    found = asyncio.run(many())
    assert all(b"retry-after: " in each for each in found if b" 429 " in each)
    assert set(Counter(int(each.split()[1]) for each in found)) == expected
    assert answers_still(server) and server.metric("kd_waiting_texts") == 0
    server.stop()


@pytest.mark.slow
def test_sigterm_answers_what_was_taken(teacher_folder):
    server = Server(teacher_folder, "--batch-wait", "700")
    with server.connect() as taken, server.connect() as unfinished, server.connect() as idle:
        taken.sendall(head(17) + b'{"texts": "film"}')
        unfinished.sendall(b"POST /pre")
        assert idle.fileno() > 0
        end = time.monotonic() + 20
        while server.metric("kd_waiting_texts") != 1 and time.monotonic() < end:
            pass
        server.process.terminate()
        answer = rest(taken)
        assert answer.startswith(b"HTTP/1.1 200 ") and b'{"predictions":[' in answer
        assert unfinished.recv(1000) == b"" and idle.recv(1000) == b""
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_a_port_in_use_is_one_sentence():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(KDError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 0), ("192.0.2.1", 0), ("127.0.0.1", 70_000)])
def test_an_address_that_is_not_here_is_one_sentence(host, port):
    with pytest.raises(KDError, match=f"cannot listen on {host} port {port}: "):
        listen(host, port)
