"""The fork server of a sweep: pays the imports once, then forks a process for each job.

It reads requests from a socket, one JSON object a line, and answers in the same way:

    {"start": 3, "arguments": [...], "log": "...", "environment": {...}, "threads": 1}
    {"warm": "module:function", "with": {...}}          call it here, for what it leaves in memory to all jobs
    {"stop": 3, "signal": 9}                            signal 9 ends the job's whole group, others its first process
    <- {"ready": true}                                  the imports are paid
    <- {"started": 3, "pid": 4711}
    <- {"ended": 3, "code": 0}                          the exit code; minus the signal for a job that was killed

It is one thread (where it reads Arrow files Arrow keeps some of its own, which mind forks) and has never touched CUDA,
or its children could use neither. Each job is a session of its own, so that what it starts (DDP ranks, loaders) ends
with it. When the other end of the socket closes, because the sweep is over or was killed, it kills every job and ends.
Should it be killed itself, the kernel kills the jobs.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import importlib.util
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
"""Fields of ``/proc/PID/stat`` after the name: its parent, its process group."""
ATTENTION = 0.2
"""Seconds between two looks at the sweep while something is warmed up."""
BEFORE_IMPORTS = {
    "OMP_NUM_THREADS": "1",  # no worker thread may exist before a fork
    "OPENBLAS_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # whether there is a GPU is asked without touching it
}


def main(descriptor: int, entry: str, preload: list[str]) -> None:
    """Serve until the other end of the socket is closed.

    Args:
        descriptor: of the socket.
        entry: ``module:function`` that a job calls with its arguments.
        preload: modules to import before the first fork.
    """
    forget_ranks()
    with environment(BEFORE_IMPORTS):
        function = load(entry)
        for module in preload:
            importlib.import_module(module)
    adopt_orphans()
    Server(socket.socket(fileno=descriptor), function).serve()
    os._exit(0)  # there is nothing to put in order, and taking down what was imported takes a second


def load(entry: str) -> Callable[[list[str]], int]:
    """The function that ``module:function`` names."""
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def adopt_orphans() -> None:
    """What is left by a process below this one becomes its child, whatever session it is in (Linux).

    Jobs do so too: what the server adopts is of a job that has ended.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass
class Server:
    """Jobs by process id, and the socket that asks for them."""

    connection: socket.socket
    function: Callable[[list[str]], int]
    jobs: dict[int, int] = field(default_factory=dict)
    unread: bytes = b""
    requests: list[dict[str, Any]] = field(default_factory=list)

    def serve(self) -> None:
        """Until the sweep is over."""
        wakeup, woken = os.pipe()
        for end in (wakeup, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.wakeup = (wakeup, woken)
        try:
            self.say(ready=True)
            while True:
                ready, _, _ = select.select([self.connection, wakeup], [], [])
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
        """Kill every job, and all that they have started."""
        for pid in self.jobs:
            end_group(pid)
        self.end_orphans(jobs=())

    def say(self, **message: Any) -> None:
        """One line to the other end."""
        self.connection.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> bool:
        """Take in what is asked; False when the other end is closed."""
        found = self.connection.recv(1 << 16)
        *lines, self.unread = (self.unread + found).split(b"\n")
        self.requests += [json.loads(line) for line in lines]
        return bool(found)

    def obey(self, request: dict[str, Any]) -> None:
        """Do what is asked."""
        if "start" in request:
            self.start(request)
        elif "warm" in request:
            # Whatever goes wrong here, a job that needs it says so.
            with self.attentive(), contextlib.suppress(Exception):
                load(request["warm"])(request["with"])
        else:
            self.stop(request["stop"], request["signal"])

    @contextlib.contextmanager
    def attentive(self) -> Iterator[None]:
        """What takes long: meanwhile jobs end and are stopped as ever, and the end of the sweep ends it."""

        def attend(*_: Any) -> None:
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
            signal.setitimer(signal.ITIMER_REAL, ATTENTION)  # not before: ending a large job takes longer

        signal.signal(signal.SIGALRM, attend)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, ATTENTION)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def start(self, request: dict[str, Any]) -> None:
        """Fork a job."""
        outlive_parent()  # there is something to end first
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            run_job(self, request, parent)
        self.jobs[pid] = request["start"]
        self.say(started=request["start"], pid=pid)

    def stop(self, job: int, number: int) -> None:
        """Signal a job that may have ended meanwhile; one that was to be started is not."""
        self.requests = [request for request in self.requests if request.get("start") != job]
        for pid, name in self.jobs.items():
            if name == job and number == signal.SIGKILL:
                end_group(pid)
            elif name == job:
                os.kill(pid, number)

    def reap(self) -> None:
        """Report the jobs that have ended, after what they have left is ended too."""
        for pid in list(self.jobs):
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                end_group(pid)  # while the job's number is still its own
                _, status = os.waitpid(pid, 0)
                job = self.jobs.pop(pid)
                self.end_orphans(self.jobs)
                self.say(ended=job, code=os.waitstatus_to_exitcode(status))
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in self.jobs:
                    return  # reported next time
                os.waitpid(found.si_pid, 0)

    def end_orphans(self, jobs: Iterable[int]) -> None:
        """Kill what jobs that have ended left in sessions of their own; what those have started comes here in turn."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and (left := set(running(PARENT, os.getpid())) - set(jobs)):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def end_group(pid: int) -> None:
    """Kill what is left of a job's process group, and wait until nothing of it runs."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # not yet a group of its own, or no longer there
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        except PermissionError:  # macOS says so of zombies
            return
        if not running(GROUP, pid):
            return
        time.sleep(0.01)


def running(field: int, value: int) -> list[int]:
    """The processes with this value in a field of ``/proc/PID/stat`` that still run (elsewhere none are seen)."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                facts = file.read().rpartition(")")[2].split()
                if int(facts[field]) == value and facts[0] not in "ZX":
                    found.append(int(name))
    return found


def run_job(server: Server, request: dict[str, Any], parent: int) -> None:
    """What the child of a fork does; it never returns."""
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
        # Ranks of the job are started as this process appears to have been started.
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
            atexit._run_exitfuncs()  # loggers may have something left to send
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def redirect(log: str) -> None:
    """What the job and all that it starts print goes to its log; it has no input."""
    os.makedirs(os.path.dirname(log), exist_ok=True)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, end in ((nothing, 0), (target, 1), (target, 2)):
        os.dup2(source, end)
    os.close(target)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # a killed job's last words


def set_threads(number: int) -> None:
    """The job's share of the processors; its ranks and loaders read it from the environment."""
    os.environ["OMP_NUM_THREADS"] = str(number)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)
