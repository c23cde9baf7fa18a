"""Texts from n-gram models, and from halves."""

from kd.transfer.ngram_model import Halves, NgramModel, by_label
from tests.conftest import BAD, GOOD


def made(step, train, seed=0):
    return [text for part in step.parts(train, seed) for text in part]


def test_each_class_has_its_own_words(train):
    texts = made(NgramModel(rounds=2), train)
    assert len(texts) == 2 * len(train.texts)
    negative, positive = (set(" ".join(texts[first::2]).split()) for first in (0, 1))
    assert not negative & set(GOOD) and not positive & set(BAD)
    assert set(" ".join(texts).split()) <= set(" ".join(train.texts).split())


def test_the_seed_decides(train):
    for step in (NgramModel(rounds=1), Halves(rounds=1)):
        assert made(step, train) == made(step, train) != made(step, train, seed=1)


def test_halves_of_one_class(train):
    texts = made(Halves(rounds=1), train)
    negative = by_label(train)[0]
    assert len(texts) == len(train.texts)
    for text, row in zip(texts, negative, strict=False):
        words = row.split()
        assert text.split()[: len(words) // 2] == words[: len(words) // 2]
        assert not set(text.split()) & set(GOOD)
