"""Check each configuration file of the user's own before Hydra parses it. Needs no torch."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from omegaconf.errors import OmegaConfBaseException

from kd.config.folder import configuration_folder
from kd.errors import KDError
from kd.storage.files import LARGEST, check_yaml

PARSED: dict[tuple[str, int], Any] = {}
"""The files of kd itself that this process has parsed, by path and time of their last change."""


@contextlib.contextmanager
def checked_files() -> Iterator[None]:
    """Check each file that Hydra reads within this context, but those of kd.

    Hydra has no public hook at this moment. Files are found in many ways: ``--config-dir``, ``--config-path``,
    ``hydra.searchpath`` on the command line and in files, lists of defaults.
    """
    Plugins.instance()  # registers the sources
    files = SourcesRegistry.instance().resolve("file")  # not what an import gives: Hydra imports its plugins once more
    load, own = files.load_config, os.path.realpath(configuration_folder())

    def load_config(self: ConfigSource, config_path: str) -> Any:
        name = self._normalize_file_name(config_path)
        place = Path(os.path.realpath(os.path.join(self.path, name)))
        if not place.exists():
            return load(self, config_path)
        if os.path.realpath(self.path) == own:  # parsed once: Hydra composes twice for a run, and for each of many jobs
            key = (str(place), place.stat().st_mtime_ns)
            if key not in PARSED:
                PARSED[key] = load(self, config_path)
            return copy.deepcopy(PARSED[key])
        require_yaml(place)
        try:
            return load(self, config_path)
        except (ArithmeticError, LookupError, TypeError, ValueError, OmegaConfBaseException, yaml.YAMLError) as error:
            raise _refusal(place, error) from error

    with mock.patch.object(files, "load_config", load_config):
        yield


def require_yaml(path: Path) -> None:
    """Refuse a file that is no YAML with keys, or that could crash or block the parser.

    Raises:
        KDError: naming the file.
    """
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            raise ValueError(f"it is no file of at most {LARGEST >> 20} MiB")
        check_yaml(path.read_text(encoding="utf-8"), aliases=True)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> KDError:
    reason = " ".join(str(error).split())
    return KDError(f"expected a YAML file in UTF-8 at '{path}', found one that cannot be read: {reason}; correct it")
