"""Cut documents into sentences in the style of the training rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from kd.data.dialect import Reading
from kd.data.files import read_rows
from kd.data.folders import texts_in
from kd.data.splits import text_keys, unusable
from kd.errors import KDError
from kd.options.declared import Share
from kd.transfer.base import FREQUENT, LabelledTexts, Step, words
from kd.transfer.ngrams import Ngrams
from kd.transfer.parts import chunks
from kd.transfer.sentences import sentences
from kd.transfer.style import Style

log = logging.getLogger(__name__)

DOCUMENTS_AT_ONCE = 2000
FOREIGN, ENOUGH = "in another language", 8
"""Why a sentence is left out, and the number of words from which its language can be told."""
SAMPLE = 20_000
"""Sentences from which the language of the documents is told."""


def side_of(text: str) -> bytes:
    """Return the key by which texts for validation and test are known."""
    return text_keys(text)[1]


@dataclass
class Documents(Step):
    """Sentences of any documents, lower-cased and tokenised as the training rows are.

    Args:
        path: a file, a folder, a pattern, an asset or a list of them, in any format of `kd.data.files.read_rows`.
        text: name of the column with the documents.
        where: the rows to use, as column -> value or list of values.
        encoding: of text files.
        known_words: smallest share of the documents' words that must be among the 50 most frequent ones of the
            training rows. It refuses documents of another language: those of one language have 30 to 50 %, others less
            than 10. Single sentences of 8 words and more with less than half of this share are left out. 0 keeps all.
        nearest: whether ``most`` takes the sentences that are nearest to the training rows, not a random sample.

    ``nearest`` ranks by the difference of two cross-entropies a word, under a bigram model of the training rows and
    under one of the documents. Moore and Lewis 2010, https://aclanthology.org/P10-2041/
    """

    selecting: ClassVar[tuple[str, ...]] = (*Step.selecting, "known_words", "nearest")

    path: str | list[str]
    text: str = "text"
    where: dict[str, Any] | None = None
    encoding: str = "utf-8"
    known_words: Share = 0.2
    nearest: bool = False

    def parts(self, train: LabelledTexts, seed: int) -> Iterator[Iterable[str]]:
        style = Style.of(train.texts)
        log.info("transfer set: sentences are written as the training rows are: %s", style)
        for documents in chunks(self._documents(train.held_out), DOCUMENTS_AT_ONCE):
            yield (style.apply(sentence) for document in documents for sentence in sentences(document))

    def fault(self, train: LabelledTexts) -> Callable[[str], str | None]:
        of_length, frequent = super().fault(train), train.frequent

        def of_language_or_length(text: str) -> str | None:
            found = words(text)
            share = sum(word in frequent for word in found) / max(len(found), 1)
            return FOREIGN if len(found) >= ENOUGH and share < self.known_words / 2 else of_length(text)

        return of_language_or_length

    def require(self, train: LabelledTexts, made: Callable[[], Iterator[str]]) -> None:
        found = [word for text in islice(made(), SAMPLE) for word in words(text)]
        share = sum(word in train.frequent for word in found) / max(len(found), 1)
        if share < self.known_words:
            raise KDError(
                f"transfer: expected documents in the language of the training rows, found {self.path}, where "
                f"{100 * share:.0f} % of the words are among the {FREQUENT} most frequent ones of the training rows, "
                f"less than {100 * self.known_words:g} %; give other documents, or set the step's known_words=0"
            )

    def distance(self, train: LabelledTexts, made: Callable[[], Iterator[str]]) -> Callable[[str], float] | None:
        if not self.nearest:
            return None
        style = Style.of(train.texts)
        near, far = (Ngrams(map(style.tokens, texts), order=2) for texts in (train.texts, made()))
        return lambda text: near.entropy(style.tokens(text)) - far.entropy(style.tokens(text))

    def _documents(self, held_out: frozenset[bytes]) -> Iterator[str]:
        """Yield the usable documents. A document that is a text for validation or test is none."""
        wanted = {
            column: {str(value) for value in (values if isinstance(values, list) else [values])}
            for column, values in (self.where or {}).items()
        }
        for file in texts_in(self.path):
            rows = read_rows(file, Reading(self.encoding, wanted=(self.text,)))
            for column in (self.text, *wanted):
                rows.require(column, "the step's text or where")
            for _, row in rows:
                if all(str(row.get(column)) in values for column, values in wanted.items()):
                    document = row.get(self.text)
                    if isinstance(document, str) and not unusable(document) and side_of(document) not in held_out:
                        yield document
