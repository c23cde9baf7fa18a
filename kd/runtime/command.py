"""Run a command of kd in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from kd.errors import KDError
from kd.runtime import ranks


def run_command(words: Sequence[str]) -> None:
    """Run ``kd`` with these words, and print what it prints. It ends with this process, also after ``kill -9``.

    Raises:
        KDError: the reason that it gives.
    """
    command = [sys.executable, "-m", "kd", *words]
    last = ""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, preexec_fn=partial(ranks.die_with_parent, os.getpid()), **pipes) as process:
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
