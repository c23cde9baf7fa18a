"""Find ``conf/``, and shorten Hydra's message about a mistake in it. Needs no torch."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from kd.errors import KDError
from kd.run import renames
from kd.runtime.launch import quoted

LISTS = ("loss", "transfer", "callbacks", "logger")
"""Groups of which a run takes several choices."""

WORD = r"[^\s'\"\[\]{},$\\](?:[^\"\[\]{},$\\\n]*[^\s'\"\[\]{},$\\])?"
"""Text that is plainly a path, a name or a sentence. It is no list and has no quotes, keys or interpolations."""
WORDS = re.compile(rf"{WORD}(?:, *{WORD})*")
CALL = re.compile(r"\w+\(.*\)")
"""What looks like a sweep of Hydra, as ``range(1,4)``."""
DEEPEST = 50
"""Levels of the most nested value. Hydra's parser takes a minute for ten thousand, and fails."""


def overrides(words: Iterable[str]) -> list[str]:
    """Return the words of a command line as Hydra can read them: with today's names, and quotes where it needs them.

    Hydra's grammar has no letters but ASCII, and no parentheses. So a value that it cannot read is put in quotes if it
    is plainly a path or a name, or a list of them.

    Raises:
        KDError: a value has more than `DEEPEST` levels.
    """
    return [_readable(word) for word in renames.overrides(words)]


def _readable(word: str) -> str:
    """Return a word, or the same word with quotes if Hydra cannot read it without."""
    key, equals, value = word.partition("=")
    opened = itertools.accumulate((sign in "[{(") - (sign in "]})") for sign in value)
    if max(opened, default=0) > DEEPEST:
        raise KDError(f"{key}: expected at most {DEEPEST} levels of lists and keys, found more; write the value flat")
    if not equals or word.startswith("-") or _is_read(word):
        return word
    listed = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if not WORDS.fullmatch(listed) or CALL.fullmatch(value):
        return word
    changed = ",".join(map(quoted, re.split(", *", listed)))
    changed = f"{key}=[{changed}]" if listed != value else f"{key}={changed}"
    return changed if _is_read(changed) else word


def _is_read(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


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
    except ValueError as error:
        if "Config group override" not in str(error):
            raise _refused(error) from error
        raise KDError(
            "expected the name of a choice for each group, found null; leave the group out, or use teacher=none, "
            "loss=[] or callbacks=[] for nothing"
        ) from error
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise _refused(error) from error


@contextlib.contextmanager
def resolving() -> Iterator[None]:
    """Raise a `KDError` of one sentence for a key that is missing, and for an interpolation that has no value."""
    try:
        yield
    except OmegaConfBaseException as error:
        raise KDError(one_sentence(error)) from error


def _refused(error: Exception) -> KDError:
    """Return the error for files of the user's own whose content Hydra does not expect."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return KDError(f"expected files that Hydra can put together, found others ({reason}); correct your own files")


def require_single_choices(config: DictConfig) -> None:
    """Refuse a list of choices for a group outside `LISTS`: Hydra would merge their files into one node."""
    for word in config.hydra.overrides.task:
        group, _, value = word.lstrip("+").partition("=")
        place = group.rpartition("@")[2].replace("/", ".")
        if value.startswith("[") and group not in LISTS and OmegaConf.is_dict(OmegaConf.select(config, place)):
            raise KDError(f"{group}: expected one choice, got {value}; write one name, as in {group}=NAME")


def _meant(key: str, node: Any) -> str:
    """Return which option a key that does not exist may mean: one with a similar name, or of that name elsewhere."""
    place, _, name = key.rpartition(".")
    root = node._get_root() if isinstance(node, Container) else OmegaConf.create()
    section = OmegaConf.select(root, place) if place else root
    close = get_close_matches(name, map(str, section) if OmegaConf.is_dict(section) else (), 1)
    found = [f"{place}.{close[0]}".lstrip(".")] if close else _keys_named(root, name)
    return f"did you mean {' or '.join(found[:3])}?" if found else "kd train --help lists the options"


def _keys_named(node: Any, name: str, place: str = "") -> list[str]:
    """Return the keys of this name at any depth, those with the shortest way first."""
    keys = [] if not OmegaConf.is_dict(node) or OmegaConf.is_interpolation(node) else list(map(str, node))
    found = [f"{place}{name}"] if name in keys else []
    for key in keys:
        if key != "hydra" and isinstance(child := node._get_node(key), Container) and not child._is_none():
            found += _keys_named(child, name, f"{place}{key}.")
    return sorted(found, key=lambda key: key.count("."))


def _no_choice(group: str, name: str, choices: Iterable[str] | None) -> str:
    """Return the sentence for a file of ``conf/`` that does not exist."""
    listed = sorted(choices or (path.stem for path in (configuration_folder() / group).glob("*.yaml")))
    close = get_close_matches(name, listed, 1)
    hint = f"did you mean {close[0]}?" if close else "choose one of them"
    return f"{group}={name}: expected a choice of {group} ({', '.join(listed) or 'there is none'}), found none; {hint}"


def one_sentence(error: Exception) -> str:
    """Return Hydra's message, hints included, as one sentence."""
    if isinstance(error, OverrideParseException):
        word = error.override if len(error.override) <= 100 else f"{error.override[:100]}..."
        return (
            f"expected KEY=VALUE, found {word}, which cannot be read; write a value with other signs than letters in "
            "quotes within quotes, as in \"data.path='data/my (first) file.csv'\""
        )
    if missing := re.match(r"Interpolation key '(.+)' not found", str(error)):
        return f"{missing[1]}: expected a value, found no such key; leave it in the configuration"
    if isinstance(error, ConfigAttributeError | ConfigKeyError) and error.full_key and not error.__cause__:
        return f"{error.full_key}: expected a value, found no such key; leave it in the configuration"
    text = " ".join(f"{error} {error.__cause__}".split())
    if key := re.search(r"Could not override '((?:[^']+\.)?([^'.]+))'.*Key '\2' is not in struct", text):
        return f"{key[1]}: there is no such option; {_meant(key[1], getattr(error.__cause__, 'parent_node', None))}"
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return _no_choice(group, name, error.options)
    text, cause = " ".join(str(error).split()), error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        text += ": " + " ".join(str(cause).split("\n")[0].split())
    return text
