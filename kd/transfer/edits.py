"""Edit the training rows: swap, delete, insert and replace words.

Wei and Zou 2019 (EDA), https://arxiv.org/abs/1901.11196
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd.errors import KDError
from kd.options.declared import Count, Share
from kd.transfer.base import LabelledTexts, Step, randomness
from kd.transfer.style import Style

ROWS_AT_ONCE = 2000
WORDNET = ("data.noun", "data.verb", "data.adj", "data.adv")
Synonyms = Mapping[str, Sequence[str]]
Edit = Callable[[list[str], Synonyms, random.Random], list[str]]


@dataclass
class Edits(Step):
    """Edited training rows. Each copy of a row gets one kind of edit, which changes a share of its words.

    The kinds take turns: two words swap their places, a word is deleted, and with a WordNet also: a word is replaced by
    a synonym, a synonym of a word is inserted somewhere.

    Args:
        rounds: edited copies of each row; repeated texts are dropped.
        share: part of a row's words that is edited, at least one word.
        path: WordNet's folder with data.noun, data.verb, data.adj and data.adv; null leaves out both edits with
            synonyms.
    """

    rounds: Count = 4
    share: Share = 0.1
    path: str | None = None

    def parts(self, train: LabelledTexts, seed: int) -> Iterator[Iterable[str]]:
        style, synonyms = Style.of(train.texts), wordnet(Path(self.path)) if self.path else {}
        kinds: list[Edit] = [swap, delete, *([replace, insert] if synonyms else [])]
        for round_ in range(self.rounds):
            for start in range(0, len(train.texts), ROWS_AT_ONCE):
                numbers = randomness(seed, "edits", round_, start)
                rows = map(style.tokens, train.texts[start : start + ROWS_AT_ONCE])
                yield (
                    style.joined(self.edited(row, kinds[(round_ + place) % len(kinds)], synonyms, numbers))
                    for place, row in enumerate(rows)
                )

    def edited(self, row: list[str], edit: Edit, synonyms: Synonyms, numbers: random.Random) -> list[str]:
        """Return a row after one kind of edit."""
        for _ in range(max(1, round(self.share * len(row)))):
            row = edit(row, synonyms, numbers)
        return row


def swap(row: list[str], synonyms: Synonyms, numbers: random.Random) -> list[str]:
    """Let two words swap their places."""
    if len(row) < 2:
        return row
    one, two = numbers.sample(range(len(row)), 2)
    found = list(row)
    found[one], found[two] = row[two], row[one]
    return found


def delete(row: list[str], synonyms: Synonyms, numbers: random.Random) -> list[str]:
    """Delete a word, but not the last one."""
    place = numbers.randrange(len(row))
    return [*row[:place], *row[place + 1 :]] or row


def replace(row: list[str], synonyms: Synonyms, numbers: random.Random) -> list[str]:
    """Replace a word that has synonyms by one of them."""
    places = [place for place, word in enumerate(row) if word in synonyms]
    if not places:
        return row
    place = numbers.choice(places)
    return [*row[:place], numbers.choice(synonyms[row[place]]), *row[place + 1 :]]


def insert(row: list[str], synonyms: Synonyms, numbers: random.Random) -> list[str]:
    """Insert a synonym of a word somewhere."""
    words = [word for word in row if word in synonyms]
    if not words:
        return row
    place = numbers.randrange(len(row) + 1)
    return [*row[:place], numbers.choice(synonyms[numbers.choice(words)]), *row[place:]]


def wordnet(folder: Path) -> dict[str, list[str]]:
    """Return the synonyms of each word in WordNet, https://wordnet.princeton.edu/documentation/wndb5wn

    A line of its files has the words of one meaning. A word gets those of all its meanings.

    Raises:
        KDError: the folder has not these files, or they have another format.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for name in WORDNET:
        try:
            lines = (folder / name).read_text("utf-8").splitlines()
            for line in lines:
                if not line.startswith("  "):  # the licence
                    fields = line.split()
                    written = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
                    words = [word.partition("(")[0].replace("_", " ").lower() for word in written]
                    for word in words:
                        found[word].update(other for other in words if other != word)
        except (OSError, ValueError, IndexError) as error:
            raise KDError(
                f"expected WordNet's files {', '.join(WORDNET)} in '{folder}', found none that can be read ({error}); "
                "give its folder dict"
            ) from error
    return {word: sorted(others) for word, others in found.items() if others}
