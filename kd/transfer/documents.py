"""Cut documents into sentences in the style of the training rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from kd.data.dialect import Reading
from kd.data.files import read_rows
from kd.data.folders import texts_in
from kd.data.splits import unusable
from kd.options.declared import Count, Share
from kd.transfer.base import LabelledTexts, Step, words
from kd.transfer.choosing import UNKNOWN
from kd.transfer.ngrams import Ngrams
from kd.transfer.parts import chunks
from kd.transfer.sentences import sentences
from kd.transfer.style import Style

log = logging.getLogger(__name__)

DOCUMENTS_AT_ONCE = 2000


class Documents(Step):
    """Sentences of any documents, lower-cased and tokenised as the training rows are.

    Args:
        path: a file, a folder, a pattern, an asset or a list of them, in any format of `kd.data.files.read_rows`.
        text: name of the column with the documents.
        where: the rows to use, as column -> value or list of values.
        encoding: of text files.
        most: largest number of sentences to use; null uses all.
        shortest, longest: number of words that a sentence may have; null sets no limit.
        known_words: smallest share of a sentence's words that must occur in the training rows. It leaves out other
            languages; 0 keeps all.
        nearest: whether ``most`` takes the sentences that are nearest to the training rows, not a random sample.

    ``nearest`` ranks by the difference of two cross-entropies a word, under a bigram model of the training rows and
    under one of the documents. Moore and Lewis 2010, https://aclanthology.org/P10-2041/
    """

    selecting: ClassVar[tuple[str, ...]] = (*Step.selecting, "known_words", "nearest")

    def __init__(
        self,
        path: str | list[str],
        text: str = "text",
        where: dict[str, Any] | None = None,
        encoding: str = "utf-8",
        most: Count | None = None,
        shortest: Count = 1,
        longest: Count | None = None,
        known_words: Share = 0.2,
        nearest: bool = False,
    ):
        super().__init__(most, shortest, longest)
        self.path, self.text, self.where, self.encoding = path, text, where or {}, encoding
        self.known_words, self.nearest = known_words, nearest

    def parts(self, train: LabelledTexts, seed: int) -> Iterator[Iterable[str]]:
        style = Style.of(train.texts)
        log.info("transfer set: sentences are written as the training rows are: %s", style)
        for documents in chunks(self._documents(), DOCUMENTS_AT_ONCE):
            yield (style.apply(sentence) for document in documents for sentence in sentences(document))

    def fault(self, train: LabelledTexts) -> Callable[[str], str | None]:
        of_length, vocabulary = super().fault(train), train.vocabulary

        def unknown_or_of_length(text: str) -> str | None:
            found = words(text)
            if sum(word in vocabulary for word in found) < self.known_words * len(found):
                return UNKNOWN
            return of_length(text)

        return unknown_or_of_length

    def distance(self, train: LabelledTexts, made: Callable[[], Iterator[str]]) -> Callable[[str], float] | None:
        if not self.nearest:
            return None
        style = Style.of(train.texts)
        near, far = (Ngrams(map(style.tokens, texts), order=2) for texts in (train.texts, made()))
        return lambda text: near.entropy(style.tokens(text)) - far.entropy(style.tokens(text))

    def _documents(self) -> Iterator[str]:
        """Yield the usable documents."""
        wanted = {
            column: {str(value) for value in (values if isinstance(values, list) else [values])}
            for column, values in self.where.items()
        }
        for file in texts_in(self.path):
            rows = read_rows(file, Reading(self.encoding, wanted=(self.text,)))
            for column in (self.text, *wanted):
                rows.require(column, "the step's text or where")
            for _, row in rows:
                if all(str(row.get(column)) in values for column, values in wanted.items()):
                    document = row.get(self.text)
                    if isinstance(document, str) and not unusable(document):
                        yield document
