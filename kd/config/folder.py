"""Find ``conf/``, and shorten Hydra's message about a mistake in it. Needs no torch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd.errors import KDError

LISTS = ("loss", "callbacks", "logger")
"""Groups of which a run takes several choices."""


def configuration_folder() -> Path:
    """Return ``conf/``. It is inside the package if kd is installed from a wheel, and beside it in a checkout."""
    inside = Path(str(files("kd"))) / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


@contextlib.contextmanager
def composing() -> Iterator[None]:
    """Raise a `KDError` of one sentence for whatever Hydra, OmegaConf or a YAML file is wrong about."""
    try:
        yield
    except KDError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise KDError(one_sentence(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise KDError(f"expected a YAML file in UTF-8, found one that cannot be read: {text}; correct it") from error
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        raise KDError(f"{error}; use teacher=none, loss=[] or callbacks=[] for nothing") from error


def require_single_choices(config: DictConfig) -> None:
    """Refuse a list of choices for a group outside `LISTS`: Hydra would merge their files into one node."""
    for word in config.hydra.overrides.task:
        group, _, value = word.lstrip("+").partition("=")
        place = group.rpartition("@")[2].replace("/", ".")
        if value.startswith("[") and group not in LISTS and OmegaConf.is_dict(OmegaConf.select(config, place)):
            raise KDError(f"{group}: expected one choice, got {value}; write one name, as in {group}=NAME")


def one_sentence(error: Exception) -> str:
    """Return Hydra's message, hints included, as one sentence."""
    text = " ".join(f"{error} {error.__cause__}".split())
    if key := re.search(r"Could not override '((?:[^']+\.)?(\w+))'.*Key '\2' is not in struct", text):
        return f"{key[1]}: there is no such option; kd train --help lists the options"
    text, cause = " ".join(str(error).split()), error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        text += ": " + " ".join(str(cause).split("\n")[0].split())
    return text
