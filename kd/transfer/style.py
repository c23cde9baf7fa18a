"""Find out how the training texts are written, and write other texts in the same way.

A teacher and a student that were trained on "it is good ." read "It is good." as other words. So a transfer set from
another place is lower-cased and tokenised like the training rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

RUN = re.compile(r"([^\w\s])\1*")
"""A punctuation mark, or several of the same."""
CLITIC = re.compile(r"(?<=[^\W\d_])(n't|'(?:s|re|ve|ll|d|m))\b", re.IGNORECASE)
APART_CLITIC = re.compile(r"(?<!\S)(n't|'(?:s|re|ve|ll|d|m))(?!\S)", re.IGNORECASE)
CAPITALS = 0.005
"""Share of capital letters below which texts count as lower-cased."""
ENOUGH = 5
"""Times that a mark must occur before its own habit counts; rarer marks follow the habit of all."""


@dataclass(frozen=True)
class Style:
    """How texts are written.

    Args:
        lower: whether they are lower-cased.
        spaced: whether blanks separate the words.
        apart: whether a mark, or a run of it such as "--", has blanks on both sides, for each that occurs often.
        others: the same for all other marks.
        clitics: whether "it's" is written "it 's", and "don't" is written "do n't".
    """

    lower: bool
    spaced: bool
    apart: dict[str, bool]
    others: bool
    clitics: bool

    @classmethod
    def of(cls, texts: Iterable[str]) -> Style:
        """Return how most of the texts are written."""
        marks: Counter[str] = Counter()
        alone: Counter[str] = Counter()
        capitals = letters = blanks = characters = together = separate = 0
        for text in texts:
            capitals += sum(map(str.isupper, text))
            letters += sum(map(str.islower, text))
            blanks += text.count(" ")
            characters += len(text)
            separate += len(APART_CLITIC.findall(text))
            together += len(CLITIC.findall(text))
            padded = f" {text} "
            for run in RUN.finditer(padded):
                marks[run[0]] += 1
                alone[run[0]] += padded[run.start() - 1].isspace() and padded[run.end()].isspace()
        usual = [mark for mark in marks if mark not in "'-\u2019"]  # within words in any style
        return cls(
            lower=capitals < CAPITALS * max(capitals + letters, 1),
            spaced=blanks > 0.05 * characters,
            apart={mark: 2 * alone[mark] > number for mark, number in marks.items() if number >= ENOUGH},
            others=2 * sum(alone[mark] for mark in usual) > sum(marks[mark] for mark in usual),
            clitics=separate > together,
        )

    def apply(self, text: str) -> str:
        """Return a text in this style.

        >>> style = Style.of(["it's good , really good ... or so-so ."] * 5)
        >>> style.apply("It's well-made, isn't it? Costs $4.50!")
        "it's well-made , isn't it ? costs $ 4.50 !"
        """
        text = text.replace("\u2019", "'")
        if self.lower:
            text = text.lower()
        if self.clitics:
            text = CLITIC.sub(r" \1", text)
        return " ".join(RUN.sub(lambda run: self._placed(run, text), text).split())

    def _placed(self, run: re.Match[str], text: str) -> str:
        """Return a run of a mark with the blanks that it has in this style."""
        marks, before, after = run[0], text[run.start() - 1 : run.start()], text[run.end() : run.end() + 1]
        if marks in ".,:" and before.isdigit() and after.isdigit():  # a number or a time
            return marks
        if marks in self.apart:
            return f" {marks} " if self.apart[marks] else marks
        if marks[0] in "'-":
            return f" {marks} " if self.others and len(marks) > 1 else marks
        if not self.apart.get(marks[0], self.others):
            return marks
        return f" {' '.join(marks) if marks[0] in self.apart else marks} "

    def __str__(self) -> str:
        case = "lower case" if self.lower else "capital letters kept"
        apart = " ".join(mark for mark, is_apart in self.apart.items() if is_apart) or ("others" if self.others else "")
        return f"{case}, {f'blanks around {apart}' if apart else 'no blanks around punctuation'}"

    def tokens(self, text: str) -> list[str]:
        """Return the words and marks of a text in this style; its characters where no blanks separate the words."""
        return text.split() if self.spaced else [character for character in text if not character.isspace()]

    def joined(self, tokens: Iterable[str]) -> str:
        """Return the text of some tokens."""
        return (" " if self.spaced else "").join(tokens)
