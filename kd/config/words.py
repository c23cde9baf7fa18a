"""Write the options of a Python call as words of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from numbers import Number
from pathlib import Path
from typing import Any

from kd.data.objects import has_table, is_table, with_files
from kd.errors import KDError
from kd.runtime.launch import quoted


def outputs_of(words: Iterable[str], options: Mapping[str, Any]) -> Path:
    """Return the folder that a call names for runs, teachers and caches."""
    named = [word.partition("=")[2] for word in words if word.startswith("outputs=")]
    return Path(str(options.get("outputs") or (named or ["outputs"])[-1]))


def words_of(words: str | Iterable[str], options: Mapping[str, Any]) -> list[str]:
    """Return options as words of the command line; tables in them are written to files below the outputs."""
    given = [words] if isinstance(words, str) else list(words)
    if wrong := [word for word in given if not isinstance(word, str)]:
        raise KDError(f"expected options as texts, such as 'trainer.max_epochs=3', got {wrong[0]!r}; write it as text")
    outputs = outputs_of(given, options)
    data = options.get("data")
    if has_table(data):
        given.insert(0, "data=files")
        options = {**options, "data": with_files({"path": data} if is_table(data) else data, outputs)}
    return [*given, *_flat(options)]


def _flat(options: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}={written(value, f'{place}{key}')}"


def written(value: Any, key: str = "a value") -> str:
    """Write a value as on the command line.

    >>> written(None), written(True), written(["a b", 2]), written(Path("a"))
    ('null', 'true', "['a b',2]", "'a'")
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(written(each, key) for each in value)}]"
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w./:@+-]+", value, re.ASCII) else quoted(value)
    if isinstance(value, Path):
        return quoted(str(value))
    if isinstance(value, Number):
        return str(value)
    raise KDError(f"{key}: expected a number, a text, a list or a dictionary, got a {type(value).__name__}; change it")
