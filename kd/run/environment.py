"""Describe the software and the machine of a run. Needs no torch."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("kd", "torch", "lightning", "transformers", "tokenizers", "torchmetrics"),
    *("hydra-core", "omegaconf", "datasets", "numpy"),
)

KERNELS = {"adamw_cpu": 2, "bilstm_cpu": 2}
"""Versions of the numeric kernels that kd chooses. A new version gives other last bits; a run that records none had 1.

1: torch's own choice of AdamW's kernel, and packed rows in the BiLSTM. 2: fused AdamW, and padded rows.
"""


def environment() -> dict[str, Any]:
    """Return the command, the versions, the commit of kd and the machine."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git_state(),
        "machine": {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()},
    }


def _version(package: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _git_state() -> dict[str, Any] | None:
    """Return the commit of kd's checkout, None for an installed kd."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout)]
    try:
        commit = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*command, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.stdout.strip(), "uncommitted_changes": bool(changes.stdout.strip())}


def processor() -> str:
    """Return the name of the CPU."""
    with suppress(OSError):
        if name := re.search(r"^model name\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return name[1].strip()
    return platform.processor()
