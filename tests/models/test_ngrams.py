"""N-grams and their weights against scikit-learn's CountVectorizer and the formulas."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from kd.data.batching import Ragged
from kd.models import ngrams
from kd.models.ngrams import NaiveBayes, TfIdf, counts, frequent, logistic, occurrences

WORDS = 12
SPECIAL = frozenset({0, 1, 2})
texts = st.lists(st.lists(st.integers(0, WORDS - 1), max_size=9), min_size=1, max_size=12)


def ragged(rows: list[list[int]]) -> Ragged:
    return Ragged.joined(
        [np.fromiter(chain.from_iterable(rows), dtype=np.int32)], [np.array([len(row) for row in rows])]
    )


def grams(longest: int):
    """What an n-gram is, in the plainest words."""

    def analyzer(row: list[int]) -> list[int]:
        parts = [row[at : at + n] for n in range(1, longest + 1) for at in range(len(row) - n + 1)]
        return [number(part) for part in parts if not SPECIAL & set(part)]

    return analyzer


def number(words: list[int]) -> int:
    found = 0
    for word in words:
        found = found * (WORDS + 1) + word + 1
    return found


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(1, 3), st.integers(1, 3))
def test_the_counts_are_those_of_count_vectorizer(rows, longest, min_count):
    found = occurrences(ragged(rows), SPECIAL, longest, WORDS + 1)
    keys = frequent(found, min_count)
    vectorizer = CountVectorizer(analyzer=grams(longest), min_df=min_count)
    try:
        expected = vectorizer.fit_transform(rows).toarray()
    except ValueError:  # scikit-learn refuses an empty vocabulary
        assert len(keys) == 0
        return
    assert keys.tolist() == vectorizer.get_feature_names_out().tolist()
    assert (counts(found, keys, len(rows)).toarray() == expected).all()
    other = [row[::-1] for row in rows]
    theirs = counts(occurrences(ragged(other), SPECIAL, longest, WORDS + 1), keys, len(rows)).toarray()
    assert (theirs == vectorizer.transform(other).toarray()).all()


@pytest.fixture
def drawn():
    """Counts ``[40, 6]``, and soft targets of three classes."""
    generator = np.random.default_rng(0)
    return ngrams.csr_matrix(generator.integers(0, 3, (40, 6)).astype(float)), softmax(
        generator.normal(size=(40, 3)), 1
    )


def test_naive_bayes_ratios_are_those_of_the_formula(drawn):
    found, targets = drawn
    weights = NaiveBayes(found, targets, smoothing=0.5)
    present = (found.toarray() > 0).astype(float)
    for label in range(3):
        inside, outside = (0.5 + present.T @ side for side in (targets[:, label], 1 - targets[:, label]))
        expected = np.log((inside / inside.sum()) / (outside / outside.sum()))
        np.testing.assert_allclose(weights.ratios[label], expected)
    assert (weights.features(found).toarray() == present).all()
    assert len(NaiveBayes(found, targets[:, :2], 1.0).ratios) == 1  # the other class has the opposite sign


def test_the_weights_of_two_classes_are_scikit_learns(drawn):
    found, soft = drawn
    labels = soft.argmax(1) % 2
    weights = NaiveBayes(found, np.eye(2)[labels], smoothing=1.0)
    table, bias = weights.table(weights.features(found), np.eye(2)[labels], 0.7)
    scaled = weights.features(found).toarray() * weights.ratios[0]
    model = LogisticRegression(C=0.7, max_iter=1000).fit(scaled, labels)
    logits = weights.features(found) @ table + bias
    np.testing.assert_allclose(logits @ [-1, 1], model.decision_function(scaled), atol=1e-3)
    np.testing.assert_allclose(softmax(logits, 1), model.predict_proba(scaled), atol=1e-3)


def test_tfidf_of_three_classes_is_scikit_learns(drawn):
    found, soft = drawn
    labels = soft.argmax(1)
    weights = TfIdf(found, np.eye(3)[labels])
    features = weights.features(found)
    table, bias = weights.table(features, np.eye(3)[labels], 2.0)
    model = LogisticRegression(C=2.0, max_iter=1000).fit(features, labels)
    np.testing.assert_allclose(softmax(features @ table + bias, 1), model.predict_proba(features), atol=1e-3)


def test_one_classifier_for_each_of_three_classes(drawn):
    found, soft = drawn
    weights = NaiveBayes(found, soft, smoothing=1.0)
    table, bias = weights.table(weights.features(found), soft, 1.0)
    side = np.stack([1 - soft[:, 2], soft[:, 2]], axis=1)
    own, its_bias = logistic(weights.features(found) @ ngrams.diags(weights.ratios[2]), side, 1.0)
    np.testing.assert_allclose(table[:, 2], weights.ratios[2] * (own[:, 1] - own[:, 0]))
    assert bias[2] == pytest.approx(its_bias[1] - its_bias[0])


def test_soft_targets_are_fitted_by_cross_entropy(drawn):
    """At the minimum, with hardly any penalty, the mean probabilities are the mean targets."""
    found, soft = drawn
    table, bias = logistic(found, soft, 1e4)
    np.testing.assert_allclose(softmax(found @ table + bias, 1).mean(0), soft.mean(0), atol=1e-3)


def test_a_class_without_a_row_is_never_chosen(drawn):
    found, soft = drawn
    two = np.eye(3)[soft[:, :2].argmax(1)]
    for weights in (NaiveBayes(found, two, 1.0), TfIdf(found, two)):
        features = weights.features(found)
        table, bias = weights.table(features, two, 1.0)
        assert 2 not in (features @ table + bias).argmax(1) and bias[2] < -19
    table, bias = logistic(found, np.eye(3)[np.ones(40, dtype=int)], 1.0)
    assert (table == 0).all() and bias.argmax() == 1
