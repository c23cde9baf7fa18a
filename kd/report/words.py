"""How the report says things."""

from __future__ import annotations

import re
from collections.abc import Sequence


def millions(count: float) -> str:
    """Parameters in millions, three figures."""
    return f"{count / 1e6:.2f}" if count < 10e6 else f"{count / 1e6:.1f}"


def short(name: str) -> str:
    """The name of a model, or of several, without the folders; of a commit seven letters."""
    name = re.sub(r"(@[0-9a-f]{7})[0-9a-f]{33}\b", r"\1", name)
    return re.sub(r"asset:|[^\s+]*/(?=[^\s+/])", "", name).rstrip("/")


def plain(text: str) -> str:
    """In one line, without what moves a terminal's cursor or turns letters round: a name may come from a stranger.

    >>> plain("a\\x1b[2Jb\\nc")
    'a�[2Jb c'
    """
    text = re.sub(r"[\n\r\t\u2028\u2029]+", " ", text)
    return re.sub("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


def plural(count: int, word: str) -> str:
    """
    >>> plural(1, "run"), plural(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def listed(words: Sequence[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""
