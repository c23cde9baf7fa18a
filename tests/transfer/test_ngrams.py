"""Kneser-Ney smoothing."""

import random

import pytest

from kd.transfer.ngrams import END, START, Ngrams

TEXTS = [text.split() for text in ("a good film", "a good plot", "a bad film", "san francisco", "san francisco")]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one(order):
    model = Ngrams(TEXTS, order)
    tokens = [*{token for text in TEXTS for token in text}, END, "never seen"]
    for context in ([START, START], ["a", "good"], ["good", "never"], ["x", "y"]):
        assert sum(model.probability(token, context) for token in tokens) == pytest.approx(1)


def test_a_word_of_one_context_is_unlikely_elsewhere():
    """ "francisco" occurs as often as "good", but only after "san"."""
    model = Ngrams(TEXTS, 2)
    assert model.probability("film", ["x"]) > model.probability("francisco", ["x"])
    assert model.probability("francisco", ["san"]) > 0.5


def test_samples_follow_the_probabilities():
    model, numbers = Ngrams(TEXTS, 2), random.Random(0)
    firsts = [sample[0] if (sample := model.sample(numbers)) else END for _ in range(4000)]
    for token in ("a", "san", "good"):
        expected = model.probability(token, [START])
        share = model.uniform  # the share of unseen tokens is never drawn
        assert firsts.count(token) / 4000 == pytest.approx(expected, abs=0.02 + share / 2)


def test_entropy_tells_a_domain():
    near, far = Ngrams(TEXTS, 2), Ngrams([["trains", "run", "late"]] * 3, 2)
    assert near.entropy(["a", "good", "film"]) < far.entropy(["a", "good", "film"])
