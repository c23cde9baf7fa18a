"""Check each configuration file of the user's own before Hydra parses it. Needs no torch."""

from __future__ import annotations

import contextlib
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
from kd.storage.files import DEEPEST, LARGEST

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast

ALIASES = 1_000
"""The largest number of aliases in a file."""
ADDED = 20_000
"""The largest number of values that the aliases of a file add. Aliases of aliases can mean billions of values."""


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
        if os.path.realpath(self.path) == own or not place.exists():
            return load(self, config_path)
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
        check(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> KDError:
    reason = " ".join(str(error).split())
    return KDError(f"expected a YAML file in UTF-8 at '{path}', found one that cannot be read: {reason}; correct it")


def check(text: str) -> None:
    """Refuse YAML that is too deep, that has too many aliases, or an alias of a value within itself.

    A few aliases are welcome: ``a: &rate 0.5``, ``b: *rate``.

    Raises:
        ValueError: saying what was found, with its line.
        yaml.YAMLError: the text is no YAML.
    """
    known: dict[str, tuple[int, int]] = {}  # the number of values and of levels that each anchor stands for
    nodes: list[list[Any]] = [[None, 0, 0]]  # anchor, values and levels of each node around the event
    aliases = added = 0
    for event in yaml.parse(text, Loader=LOADER):
        place = f"line {event.start_mark.line + 1}"  # type: ignore[union-attr]
        if isinstance(event, yaml.CollectionStartEvent):
            _require(len(nodes) <= DEEPEST, f"{place} has more than {DEEPEST} levels")
            nodes.append([event.anchor, 1, 0])
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, values, levels = nodes.pop()
            levels += 1
        elif isinstance(event, yaml.ScalarEvent):
            anchor, values, levels = event.anchor, 1, 0
        elif isinstance(event, yaml.AliasEvent):
            anchor, (values, levels) = None, known.get(event.anchor or "", (0, 0))
            _require(event.anchor in known, f"{place} has the alias *{event.anchor} within or before its value")
            aliases, added = aliases + 1, added + values
            _require(aliases <= ALIASES, f"{place} has more than {ALIASES} aliases; write the values out")
            _require(added <= ADDED, f"{place}: the aliases stand for more than {ADDED} values; use fewer")
            _require(len(nodes) - 1 + levels <= DEEPEST, f"{place} has more than {DEEPEST} levels")
        else:  # the begin or the end of the document
            continue
        if anchor is not None:
            known[anchor] = values, levels
        nodes[-1][1:] = nodes[-1][1] + values, max(nodes[-1][2], levels)


def _require(holds: bool, refusal: str) -> None:
    if not holds:
        raise ValueError(refusal)
