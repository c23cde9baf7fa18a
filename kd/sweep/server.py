"""The fork server of a sweep: imports everything a single time, then forks a process for each job.

It reads requests from a socket, one JSON object a line, and writes events in the same way:

    {"start": 3, "arguments": [...], "log": "...", "environment": {...}, "threads": 1}
    {"warm": "module:function", "with": {...}}          call it here, so that later jobs find its results in memory
    {"stop": 3, "signal": 9}                            signal 9 ends the job's whole group, others its first process
    <- {"started": 3, "pid": 4711}
    <- {"ended": 3, "code": 0}                          the exit code; minus the signal for a job that was killed

It has one thread (and those of Arrow, which allow forks) and never uses CUDA: its children could use neither after a
fork. Each job has a session of its own, so that what it starts (DDP ranks, data loaders) ends with it. When the other
end of the socket closes, because the sweep is over or was killed, the server kills every job and ends. If the server
itself is killed, the kernel kills the jobs.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import importlib.util
import io
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kd.runtime.ranks import die_with_parent, environment, forget_ranks, outlive_parent

PR_SET_CHILD_SUBREAPER = 36
PARENT, GROUP = 1, 2
"""Fields of ``/proc/PID/stat`` after the name: the process's parent and its process group."""
POLL = 0.2
"""Seconds between two looks at the socket and the jobs during a `warm` request."""
BEFORE_IMPORTS = {
    "OMP_NUM_THREADS": "1",  # no worker thread may exist before a fork
    "OPENBLAS_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # torch looks for a GPU without starting CUDA
}


def main(descriptor: int, entry: str, preload: list[str]) -> None:
    """Serve the socket with this file descriptor until its other end, a `kd.sweep.client.ForkServer`, is closed."""
    forget_ranks()
    with environment(BEFORE_IMPORTS):
        function = load(entry)
        for module in preload:
            importlib.import_module(module)
    adopt_orphans()
    Server(socket.socket(fileno=descriptor), function).serve()
    os._exit(0)  # nothing needs to be closed, and an ordinary exit takes a second


def load(entry: str) -> Callable[..., Any]:
    """Import the function that ``module:function`` names."""
    module, _, name = entry.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def adopt_orphans() -> None:
    """Make this process the parent of orphans of its descendants, whatever session they are in (Linux).

    Each job does so too, so an orphan that reaches the server comes from a job that has ended.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass
class Server:
    """Forks the jobs that are requested through a socket.

    Args:
        connection: the socket.
        function: what a job calls with its arguments; it returns the exit code.
        jobs: numbers of the running jobs, by process id.
        unread: the beginning of a request whose end was not received yet.
        requests: those that were received and wait.
    """

    connection: socket.socket
    function: Callable[[list[str]], int]
    jobs: dict[int, int] = field(default_factory=dict)
    unread: bytes = b""
    requests: list[dict[str, Any]] = field(default_factory=list)

    def serve(self) -> None:
        """Obey requests until the sweep is over."""
        wakeup, woken = os.pipe()
        for end in (wakeup, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.wakeup = (wakeup, woken)
        try:
            while True:
                sources: list[Any] = [self.connection, wakeup]
                ready, _, _ = select.select(sources, [], [])
                if wakeup in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wakeup, 4096)
                self.reap()
                if self.connection in ready and not self.read():
                    return
                while self.requests:
                    self.obey(self.requests.pop(0))
        except (ConnectionError, BrokenPipeError):
            return
        finally:
            self.end_all()

    def end_all(self) -> None:
        """Kill every job with all processes that it started."""
        for pid in self.jobs:
            end_group(pid)
        self.end_orphans(jobs=())

    def send(self, **event: Any) -> None:
        self.connection.sendall(json.dumps(event).encode() + b"\n")

    def read(self) -> bool:
        """Receive requests; return False when the other end is closed."""
        found = self.connection.recv(1 << 16)
        *lines, self.unread = (self.unread + found).split(b"\n")
        self.requests += [json.loads(line) for line in lines]
        return bool(found)

    def obey(self, request: dict[str, Any]) -> None:
        if "start" in request:
            self.start(request)
        elif "warm" in request:
            # An error is not reported here: the job that needs the result meets it again and reports it.
            with self.polling(), contextlib.suppress(Exception):
                load(request["warm"])(request["with"])
        else:
            self.stop(request["stop"], request["signal"])

    @contextlib.contextmanager
    def polling(self) -> Iterator[None]:
        """Report ends and obey stop requests during a long call, which ends with the sweep."""

        def poll(*_: Any) -> None:
            try:
                self.reap()
                open_ = not select.select([self.connection], [], [], 0)[0] or self.read()
                for request in [one for one in self.requests if "stop" in one]:
                    self.requests.remove(request)
                    self.obey(request)
            except ConnectionError:
                open_ = False
            if not open_:
                self.end_all()
                os._exit(0)
            signal.setitimer(signal.ITIMER_REAL, POLL)  # only now, since ending a large job may take longer than POLL

        signal.signal(signal.SIGALRM, poll)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, POLL)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def start(self, request: dict[str, Any]) -> None:
        outlive_parent()  # when the sweep is killed, the server must live on to kill its jobs
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            run_job(self, request, parent)
        self.jobs[pid] = request["start"]
        self.send(started=request["start"], pid=pid)

    def stop(self, job: int, number: int) -> None:
        """Send a signal to a job, which may have ended already; drop a job that was not started yet."""
        self.requests = [request for request in self.requests if request.get("start") != job]
        for pid, name in self.jobs.items():
            if name == job and number == signal.SIGKILL:
                end_group(pid)
            elif name == job:
                os.kill(pid, number)

    def reap(self) -> None:
        """Report the jobs that have ended, and kill what they left behind before that."""
        for pid in list(self.jobs):
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                end_group(pid)  # before waitpid: afterwards another process may get this id
                _, status = os.waitpid(pid, 0)
                job = self.jobs.pop(pid)
                self.end_orphans(self.jobs)
                self.send(ended=job, code=os.waitstatus_to_exitcode(status))
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in self.jobs:
                    return  # the next call reports it
                os.waitpid(found.si_pid, 0)

    def end_orphans(self, jobs: Iterable[int]) -> None:
        """Kill processes that ended jobs left in other sessions. Their children become orphans and are killed next."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and (left := set(running(PARENT, os.getpid())) - set(jobs)):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def end_group(pid: int) -> None:
    """Kill what is left of a job's process group, and wait until none of its processes runs."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet, or is gone
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        except PermissionError:  # macOS raises this for zombies
            return
        if not running(GROUP, pid):
            return
        time.sleep(0.01)


def running(field: int, value: int) -> list[int]:
    """Return the running processes with this value in a field of ``/proc/PID/stat``; none without ``/proc``."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
                if int(fields[field]) == value and fields[0] not in "ZX":
                    found.append(int(name))
    return found


def run_job(server: Server, request: dict[str, Any], parent: int) -> None:
    """Run a job in the child of a fork. This never returns."""
    code = 70
    try:
        os.setsid()
        die_with_parent(parent)
        adopt_orphans()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for end in server.wakeup:
            os.close(end)
        server.connection.close()
        redirect(request["log"])
        os.environ.update(request["environment"])
        set_threads(request["threads"])
        arguments = request["arguments"]
        # Lightning starts the job's ranks with this command line and this main module.
        sys.argv = ["kd", *arguments]
        sys.modules["__main__"].__spec__ = importlib.util.find_spec("kd.__main__")
        code = server.function(arguments)
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()  # loggers may still hold lines
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def redirect(log: str) -> None:
    """Append the output of this process and its children to a log; give them no input."""
    os.makedirs(os.path.dirname(log), exist_ok=True)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, end in ((nothing, 0), (target, 1), (target, 2)):
        os.dup2(source, end)
    os.close(target)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # so that the log has the last lines of a killed job


def set_threads(number: int) -> None:
    """Set the job's number of CPU threads; its ranks and data loaders read it from the environment."""
    os.environ["OMP_NUM_THREADS"] = str(number)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)
