"""Where ``conf/`` is, and what Hydra says about a mistake in it. Needs no torch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from omegaconf.errors import OmegaConfBaseException


def configuration_folder() -> Path:
    """``conf/``: inside the package where kd is installed from a wheel, beside it in a checkout."""
    inside = Path(str(files("kd"))) / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def one_sentence(error: Exception) -> str:
    """Hydra's several lines in one, its hints included."""
    text = " ".join(str(error).split())
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        text += ": " + " ".join(str(cause).split("\n")[0].split())
    return text
