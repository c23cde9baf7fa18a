"""Training rows in which words for women and words for men are exchanged. For English.

Counterfactual data augmentation: Lu et al. 2018, https://arxiv.org/abs/1807.11714
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from kd.transfer.base import LabelledTexts, Step

ROWS_AT_ONCE = 2000
AFTER_OBJECT = re.compile(
    "a about after again and as at because before but by for from how if in into is like more most no not of off on "
    "or out over so than that the then there to too until up was what when where who why with without".replace(" ", "|")
)
"""Words that follow "her" where it is an object ("gave her a chance"), not a possessive ("her chance")."""


@cache
def people() -> dict[str, Any]:
    """Return the content of ``people.yaml``: pairs of words, and pairs of names by origin."""
    found: dict[str, Any] = yaml.safe_load(files("kd.transfer").joinpath("people.yaml").read_text("utf-8"))
    return found


@cache
def exchanged() -> tuple[dict[str, str], re.Pattern[str]]:
    """Return the word that takes the place of each word, and a pattern that finds them, with the word after it."""
    content = people()
    pairs = [*content["words"], *(pair for pairs in content["names"].values() for pair in pairs)]
    found = {one: other for pair in pairs for one, other in (pair, pair[::-1])} | {"him": "her", "hers": "his"}
    words = "|".join(sorted(map(re.escape, [*found, "her", "his"]), key=len, reverse=True))
    return found, re.compile(rf"(?<![\w-])({words})(?![\w-])(?=(\s+[\w-]+)?)", re.IGNORECASE)


def swapped(text: str) -> str:
    """Return a text with words for women in place of words for men, and the other way round.

    Capital letters stay where they were. "her" becomes "his" before a word that it may belong to, otherwise "him".

    >>> swapped("She gave her brother a film about her . Maria LOVED it")
    'He gave his sister a film about him . Jose LOVED it'
    """
    others, pattern = exchanged()

    def other(found: re.Match[str]) -> str:
        word, following = found[1], (found[2] or "").strip().lower()
        owned = following and not AFTER_OBJECT.fullmatch(following)
        of_owner = {"her": "his" if owned else "him", "his": "her" if following else "hers"}
        new = of_owner.get(word.lower()) or others[word.lower()]
        if word.isupper() and len(word) > 1:
            return new.upper()
        return new.capitalize() if word[0].isupper() else new

    return pattern.sub(other, text)


@dataclass
class Counterfactual(Step):
    """Training rows about women with words for men in their place, and the other way round.

    Rows without such a word make no text. The teacher labels the others, so that a bias of the teacher stays: see
    docs/auditing.md.
    """

    def parts(self, train: LabelledTexts, seed: int) -> Iterator[Iterable[str]]:
        for start in range(0, len(train.texts), ROWS_AT_ONCE):
            pairs = [(text, swapped(text)) for text in train.texts[start : start + ROWS_AT_ONCE]]
            yield (new for text, new in pairs if new != text)
