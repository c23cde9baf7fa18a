"""Run a command of kd in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

from kd.errors import KDError


def run_command(words: Sequence[str]) -> None:
    """Run ``kd`` with these words, and print what it prints.

    Raises:
        KDError: the reason that it gives.
    """
    command = [sys.executable, "-m", "kd", *words]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                print(line, end="")
                last = line.strip() or last
        except BaseException:  # such as the stop button of a notebook
            process.send_signal(signal.SIGINT)
            raise
    if process.returncode:
        raise KDError(last.removeprefix(f"kd {words[0]}: "))
