"""Change the training rows by the three rules of Tang et al. 2019, https://arxiv.org/abs/1903.12136"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd.options.declared import Count, Share
from kd.storage.assets import resolve
from kd.transfer.base import LabelledTexts, Step, randomness
from kd.transfer.style import Style
from kd.transfer.tagger import Tagger

ROWS_AT_ONCE = 2000


@dataclass
class Rules(Step):
    """Changed training rows: words masked, words replaced by others of the same part of speech, and n-grams.

    In each round, each word of a row is masked with the probability ``mask``, else replaced with the probability
    ``replace`` by a word that is drawn from all words of the training rows with its tag. Then, with the probability
    ``ngram``, only an n-gram of the row is kept, whose length is drawn from 1 to ``longest_ngram``.

    The mask must be the mask token of the teacher: "[MASK]" for BERT and MiniLM, "<mask>" for MPNet and RoBERTa. A
    student with the teacher's pieces or with ``tokenizer=words`` reads it as one token; a student with a tokenizer
    that has another mask token reads its letters.

    Args:
        rounds: changed copies of each row; repeated texts are dropped.
        mask: probability of masking a word.
        replace: probability of replacing a word.
        ngram: probability of keeping an n-gram alone.
        longest_ngram: largest number of words in it.
        mask_token: in place of a masked word.
        path: the tagger; null replaces a word by any word, as a language without a tagger needs.
    """

    rounds: Count = 20
    mask: Share = 0.1
    replace: Share = 0.1
    ngram: Share = 0.25
    longest_ngram: Count = 5
    mask_token: str = "[MASK]"
    path: str | None = "asset:english-pos-tagger"

    def parts(self, train: LabelledTexts, seed: int) -> Iterator[Iterable[str]]:
        style = Style.of(train.texts)
        tagger = Tagger(Path(resolve(self.path))) if self.path else None
        rows = [style.tokens(text) for text in train.texts]
        tags = [tags_of(row, tagger) for row in rows]
        with_tag: dict[str, list[str]] = defaultdict(list)
        for row, own in zip(rows, tags, strict=True):
            for word, tag in zip(row, own, strict=True):
                with_tag[tag].append(word)
        for round_ in range(self.rounds):
            for start in range(0, len(rows), ROWS_AT_ONCE):
                chosen = slice(start, start + ROWS_AT_ONCE)
                numbers = randomness(seed, "rules", round_, start)
                pairs = zip(rows[chosen], tags[chosen], strict=True)
                yield (style.joined(self.changed(row, own, with_tag, numbers)) for row, own in pairs)

    def changed(
        self, row: Sequence[str], tags: Sequence[str], with_tag: dict[str, list[str]], numbers: random.Random
    ) -> list[str]:
        """Return a changed copy of the words of a row."""
        found = []
        for word, tag in zip(row, tags, strict=True):
            drawn = numbers.random()
            if drawn < self.mask:
                word = self.mask_token
            elif drawn < self.mask + self.replace:
                word = numbers.choice(with_tag[tag])
            found.append(word)
        if numbers.random() < self.ngram:
            length = min(numbers.randint(1, self.longest_ngram), len(found))
            start = numbers.randrange(len(found) - length + 1)
            found = found[start : start + length]
        return found


def tags_of(row: Sequence[str], tagger: Tagger | None) -> list[str]:
    """Return the part of speech of each word of a row, with the form of a verb. Each mark is a tag of its own."""
    is_word = [any(map(str.isalnum, word)) for word in row]
    if tagger is None:
        return ["word" if known else word for word, known in zip(row, is_word, strict=True)]
    tags = iter(tagger.tag([word for word, known in zip(row, is_word, strict=True) if known]))
    return [next(tags) if known else word for word, known in zip(row, is_word, strict=True)]
