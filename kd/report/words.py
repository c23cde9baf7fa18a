"""Write numbers, names and lists as words."""

from __future__ import annotations

import re
from collections.abc import Sequence

METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}
"""The metrics as they are shown."""


def millions(count: float) -> str:
    """Write a number of parameters in millions, with three figures."""
    return f"{count / 1e6:.2f}" if count < 10e6 else f"{count / 1e6:.1f}"


def short(name: str) -> str:
    """Shorten the name of a model, or of several: no folders, seven letters of a commit.

    >>> short("teachers/big+org/small@" + 40 * "f"), short("asset:reviews")
    ('big+small@fffffff', 'reviews')
    """
    name = re.sub(r"(@[0-9a-f]{7})[0-9a-f]{33}\b", r"\1", name)
    return re.sub(r"asset:|[^\s+]*/(?=[^\s+/])", "", name).rstrip("/")


def plain(text: str) -> str:
    """Write text in one line, without control characters: a name may come from a stranger.

    They would move the cursor of a terminal, or reverse the direction of the letters.

    >>> plain("a\\x1b[2Jb\\nc")
    'a�[2Jb c'
    """
    text = re.sub(r"[\n\r\t\u2028\u2029]+", " ", text)
    return re.sub("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


def plural(count: int, word: str) -> str:
    """Write a count with its word.

    >>> plural(1, "run"), plural(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def capital(text: str) -> str:
    """Write the first letter large, and leave the others as they are.

    >>> capital("no KL")
    'No KL'
    """
    return text[:1].upper() + text[1:]


def listed(words: Sequence[str]) -> str:
    """Join words with commas and "and".

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""
