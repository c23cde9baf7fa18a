"""Find ``conf/``, and shorten Hydra's message about a mistake in it. Needs no torch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from omegaconf.errors import OmegaConfBaseException


def configuration_folder() -> Path:
    """Return ``conf/``. It is inside the package if kd is installed from a wheel, and beside it in a checkout."""
    inside = Path(str(files("kd"))) / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def one_sentence(error: Exception) -> str:
    """Return Hydra's message, hints included, as one sentence."""
    text = " ".join(str(error).split())
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        text += ": " + " ".join(str(cause).split("\n")[0].split())
    return text
