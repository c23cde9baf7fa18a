"""Measure the memory of a process that answers with a classifier."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kd.errors import KDError

PROGRAM = """
import json, sys
from pathlib import Path
from kd.classifier import load
from kd.export import classifier, folder
path, threads = Path(sys.argv[1]), int(sys.argv[2])
(classifier.load(path, threads) if folder.is_export(path) else load(path)).logits(json.load(sys.stdin))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS:")))
"""
"""Loads a classifier, answers some texts, and prints its resident memory in KiB."""


SECONDS = 600
"""Time after which the process is stopped."""


def resident(path: Path, texts: Sequence[str], threads: int) -> int | None:
    """Return the bytes of memory that a new process holds after it has answered texts; None if this is not Linux.

    This is what a server needs: the weights, and the libraries with it. An export does without torch.

    Raises:
        KDError: the process fails, or takes longer than `SECONDS`.
    """
    if sys.platform != "linux":
        return None
    command = [sys.executable, "-c", PROGRAM, str(path.absolute()), str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}  # those of torch
    try:
        done = subprocess.run(
            command,
            input=json.dumps(list(texts)),
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise KDError(
            f"cannot measure the memory of '{path}' (no answer in {SECONDS} s); try it again later"
        ) from error
    if done.returncode:
        reason = (done.stderr.strip() or "killed").splitlines()[-1][:200]
        raise KDError(f"cannot measure the memory of '{path}' ({reason}); check that it can be loaded")
    return 1024 * int(done.stdout.split()[-1])
