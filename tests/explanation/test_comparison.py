"""What is compared over a data set, on classifiers whose influences are planted."""

import numpy as np
import pytest

from kd.errors import KDError
from kd.explanation.attribution import Attribution, Model, occlusion
from kd.explanation.comparison import compared, deletion, differing_words, rank_correlation
from tests.conftest import make_reviews
from tests.explanation.additive import Additive

NAMES = ["negative", "positive"]
TEXTS = [text for text, _ in make_reviews(60)]
WORDS = sorted({word for text in TEXTS for word in text.split()})
WEIGHTS = dict(zip(WORDS, np.random.default_rng(0).normal(size=len(WORDS)), strict=True))
PLANTED = "film"


def found(weights, name="student"):
    model = Model(name, Additive(weights), NAMES)
    labels = Model("student", Additive(WEIGHTS), NAMES).logits(TEXTS).argmax(axis=1)
    return model, occlusion(model, TEXTS, labels), labels


def data_of(*weights):
    each = [found(own, name) for own, name in zip(weights, ("student", "teacher", "other"), strict=False)]
    return compared([one[0] for one in each], [one[1] for one in each], TEXTS, each[0][2])


def test_a_model_that_is_the_same_but_twice_as_sure_does_not_differ():
    data = data_of(WEIGHTS, {word: 2 * weight for word, weight in WEIGHTS.items()})
    assert data["pairs"][0]["correlation"]["mean"] == pytest.approx(1) and data["pairs"][0]["same_label"] == 1
    assert data["words"] == [] and data["words_tested"] > 5
    assert data["rows"] + data["left_out"] == len(TEXTS)
    assert data["models"][1]["influence"] == pytest.approx(2 * data["models"][0]["influence"])


def test_a_planted_word_is_found_and_no_other_gains_by_it():
    data = data_of(WEIGHTS, {**WEIGHTS, PLANTED: WEIGHTS[PLANTED] + 4})
    first = data["words"][0]
    assert (first["word"], first["towards"]) == (PLANTED, "positive") and first["difference"]["interval"][1] < 0
    assert first["texts"] >= 5
    assert data["pairs"][0]["correlation"]["mean"] < 0.95


def test_the_gain_says_whose_ranks_are_nearer_to_the_teachers():
    far = {word: -weight for word, weight in WEIGHTS.items()}
    near = {word: weight + 0.1 * len(word) for word, weight in WEIGHTS.items()}
    assert data_of(near, WEIGHTS, far)["gain"]["interval"][0] > 0
    assert data_of(far, WEIGHTS, near)["gain"]["interval"][1] < 0
    assert data_of(near, WEIGHTS)["gain"] is None


def test_removing_what_matters_matters_and_removing_what_does_not_does_not():
    model, right, labels = found(WEIGHTS)
    ranked, random = deletion(model, right, TEXTS, labels)
    assert ranked.shape == (6, len(TEXTS)) and np.allclose(ranked[0], random[0])
    assert (np.diff(ranked[:2].mean(axis=1)) < -0.1).all() and (random - ranked)[1:].mean() > 0.15
    wrong = [Attribution(-each.values, each.odds) for each in right]
    assert (lambda ranked, random: (random - ranked)[1:].mean())(*deletion(model, wrong, TEXTS, labels)) < -0.1


def test_with_three_labels_each_label_has_words_of_its_own():
    values = [Attribution(np.array([1.0 + row / 10, 0.5, -1.0]), 0.0) for row in range(12)]
    other = [Attribution(np.array([-1.0, 0.5, 1.0]), 0.0) for _ in range(12)]
    texts = [f"good fine bad{' ' * row}" for row in range(12)]
    rows, tested = differing_words(values, other, texts, ["a", "b", "c", "a"] * 3, ["a", "b", "c"])
    assert tested == 3, "only label a has five texts"
    assert {row["towards"] for row in rows} == {"a"} and {row["word"] for row in rows} >= {"good", "bad"}


def test_texts_without_an_order_are_left_out():
    short, flat = Attribution(np.array([1.0, 2.0]), 0.0), Attribution(np.zeros(4), 0.0)
    good = Attribution(np.array([1.0, 2.0, 3.0]), 0.0)
    assert np.isnan(rank_correlation(short, short)) and np.isnan(rank_correlation(flat, flat))
    assert rank_correlation(good, Attribution(np.array([1.0, 4.0, 9.0]), 0.0)) == pytest.approx(1)
    with pytest.raises(KDError, match=r"expected at least 2 texts of 3 words or more .*found 0 among 2"):
        compared([Model("student", Additive({}), NAMES)], [[short, short]], ["a b", "c d"], np.array([0, 1]))
