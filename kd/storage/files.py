"""Write files and folders in one step, so that no reader finds a half-written one. Needs no torch."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from kd.errors import KDError
from kd.storage.locks import mark

LARGEST = 64 << 20
"""Bytes of the largest JSON or YAML file that is read."""
DEEPEST = 50
"""Levels of the most nested YAML file that is read. The parser is recursive: some ten thousand levels crash it."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        KDError: the file is missing or damaged, or holds another JSON value.
    """
    try:
        content = json.loads(_text(path), parse_int=_whole_number)
        json.dumps(content, ensure_ascii=False).encode()  # half of a surrogate pair could not be printed
    except (OSError, ValueError, RecursionError) as error:
        raise KDError(f"expected a JSON file at '{path}', found none that can be read: {error}") from error
    if not isinstance(content, dict):
        raise KDError(f"expected a JSON object in '{path}', found a {type(content).__name__}")
    return content


def _whole_number(digits: str) -> int:
    if len(digits) > 20:  # no figure of kd is as large, and most code that reads one could not hold it
        raise ValueError(f"the number {digits[:12]}... has {len(digits)} digits")
    return int(digits, base=0) if digits.strip("+-0_") else 0


def _text(path: Path) -> str:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a named pipe would wait, a device may never end
            raise ValueError("it is no ordinary file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST >> 20} MiB")
    return content.decode("utf-8")


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values: no aliases, no tags, no dates, at most `DEEPEST` levels.

    Raises:
        KDError: the file is missing or damaged, or holds something else.
    """
    try:
        text = _text(path)
        check_yaml(text)
        content = yaml.load(text, Loader=_Plain)  # noqa: S506  # it makes plain values alone
        json.dumps(content, ensure_ascii=False, default=str).encode()
        return content
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise KDError(f"expected a YAML file at '{path}', found none that can be read: {reason}") from error


def check_yaml(text: str, aliases: bool = False) -> None:
    """Refuse YAML that would crash the parser, which is recursive.

    Args:
        text: the content of a file.
        aliases: allow aliases, such as ``*rate`` in ``a: &rate 0.5``, ``b: *rate``.

    Raises:
        ValueError: it is too deep, or has an alias; with the line.
        yaml.YAMLError: the text is no YAML.
    """
    levels = 0
    for event in yaml.parse(text, Loader=_Loader):
        levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        place = f"line {event.start_mark.line + 1}"  # type: ignore[union-attr]
        if levels > DEEPEST:
            raise ValueError(f"{place} has more than {DEEPEST} levels")
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise ValueError(f"{place} has the alias *{event.anchor}; write the value out")


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast, but not always installed


class _Plain(_Loader):
    """Reads values that JSON has. A date is a text; sets, binary values and other tags are refused."""


_Plain.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Plain.yaml_constructors = {
    f"tag:yaml.org,2002:{kind}": _Loader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]
    for kind in ("null", "bool", "float", "seq", "map", "str")
} | {None: _Loader.yaml_constructors[None], "tag:yaml.org,2002:int": lambda _, node: _whole_number(node.value)}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write or replace a JSON file in one step."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write or replace a text file in one step."""
    write_bytes(path, content.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write or replace a file in one step."""
    temporary = path.with_name(f".{path.name}.{mark()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


@contextmanager
def built_beside(place: Path) -> Iterator[Path]:
    """Give an empty folder beside ``place``. At the end of the block, it is renamed to ``place``.

    If the block raises an exception, the folder is removed and ``place`` stays as it was. The caller must hold the
    lock of ``place``: what killed processes have left beside it is removed first.
    """
    for leftover in place.parent.glob(f"{place.name}.building-*"):
        shutil.rmtree(leftover)
    building = place.with_name(f"{place.name}.building-{mark()}")
    building.mkdir()
    try:
        yield building
        # Only an empty folder can be replaced in one step, so the old one is moved away first.
        old = place.with_name(f".{place.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            os.replace(place, old)
        os.replace(building, place)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
