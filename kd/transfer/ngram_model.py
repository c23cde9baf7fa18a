"""Sample new texts from n-gram models of the training rows: the floor that a better generator must exceed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kd.options.declared import Count
from kd.transfer.base import LabelledTexts, Step, randomness
from kd.transfer.ngrams import Ngrams
from kd.transfer.style import Style

TEXTS_AT_ONCE = 2000


@dataclass
class NgramModel(Step):
    """Texts sampled from an n-gram model of each class (`kd.transfer.ngrams`), the same number for each.

    Args:
        rounds: number of texts for each training row.
        order: largest length of an n-gram. A larger one copies longer pieces of the training rows.
    """

    rounds: Count = 4
    order: Count = 3

    def parts(self, train: LabelledTexts, seed: int) -> Iterator[Iterable[str]]:
        style = Style.of(train.texts)
        models = [Ngrams(map(style.tokens, texts), self.order) for texts in by_label(train)]
        total = self.rounds * len(train.texts)
        for start in range(0, total, TEXTS_AT_ONCE):
            numbers = randomness(seed, "ngram_model", start)
            places = range(start, min(start + TEXTS_AT_ONCE, total))
            yield (style.joined(models[place % len(models)].sample(numbers)) for place in places)


@dataclass
class Halves(Step):
    """The first half of a training row joined to the second half of another row of its class.

    Args:
        rounds: number of texts for each training row.
    """

    rounds: Count = 4

    def parts(self, train: LabelledTexts, seed: int) -> Iterator[Iterable[str]]:
        style = Style.of(train.texts)
        classes = [list(map(style.tokens, texts)) for texts in by_label(train)]
        for round_ in range(self.rounds):
            for number, rows in enumerate(classes):
                numbers = randomness(seed, "halves", round_, number)
                pairs = zip(rows, numbers.sample(rows, len(rows)), strict=True)
                yield (style.joined([*one[: len(one) // 2], *two[len(two) // 2 :]]) for one, two in pairs)


def by_label(train: LabelledTexts) -> list[list[str]]:
    """Return the texts of each class, the classes in the order of their numbers."""
    return [
        [text for text, label in zip(train.texts, train.labels, strict=True) if label == wanted]
        for wanted in sorted(set(train.labels))
    ]
