"""The ranks of a test module, as processes of their own, and what each of them reports."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

RANKS = 2


def reports(module: str, folder: Path, timeout: float) -> list[dict]:
    """Start a module that calls `start_ranks`, and read what each rank has written into the folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, folder],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, printed
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


def start_ranks(report: Callable[[Path], dict]) -> None:
    """Start the ranks; each writes what ``report`` returns into the folder that the command line names."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = report, Path(sys.argv[1]), port
    torch.multiprocessing.start_processes(run_rank, arguments, nprocs=RANKS, start_method="fork")


def run_rank(rank: int, report: Callable[[Path], dict], folder: Path, port: int) -> None:
    """One of the processes, as a launcher would start it."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    (folder / f"{rank}.json").write_text(json.dumps(report(folder)))
