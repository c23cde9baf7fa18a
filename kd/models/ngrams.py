"""Count the n-grams of rows, and fit a linear classifier to them. Imports scikit-learn, so import it for a fit only.

N rows, F n-grams, C labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, diags
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression

from kd.data.batching import Ragged

ABSENT = -20.0
"""The logit of a class that no row has; the others are near 0."""


class Occurrences(NamedTuple):
    """All n-grams of some rows: the row and the number of each."""

    rows: np.ndarray
    keys: np.ndarray


def occurrences(
    tokens: Ragged, special: frozenset[int], longest: int, base: int, spelling: np.ndarray | None = None
) -> Occurrences:
    """Return the n-grams of 1 to ``longest`` words, without those that contain a special token, and of characters.

    The number of an n-gram of words has its token ids, each plus 1, as digits to the given base. The numbers of those
    of characters go down from -2; ``spelling`` is the table of `kd.models.ngram_keys.spelled`.
    """
    ids, ends = tokens.values.astype(np.int64), np.repeat(tokens.offsets[1:], tokens.lengths)
    rows = np.repeat(np.arange(len(tokens)), tokens.lengths)
    words, starts = ~np.isin(ids, list(special)), np.arange(len(ids))
    key, whole, found = np.zeros_like(ids), np.ones(len(ids), dtype=bool), []
    for n in range(longest):
        last = np.minimum(starts + n, len(ids) - 1)  # the last word of each n-gram
        key, whole = key * base + ids[last] + 1, whole & (starts + n < ends) & words[last]
        found.append((rows[whole], key[whole]))
    if spelling is not None:
        numbers = spelling[ids]
        occurring = numbers >= 0
        found.append((np.repeat(rows, occurring.sum(axis=1)), -2 - numbers[occurring].astype(np.int64)))
    return Occurrences(*map(np.concatenate, zip(*found, strict=True)))


def counts(found: Occurrences, keys: np.ndarray, rows: int) -> csr_matrix:
    """Return how often each row ``[N, F]`` has each of these n-grams, whose numbers rise."""
    places = np.searchsorted(keys, found.keys)
    known = keys[np.minimum(places, len(keys) - 1)] == found.keys
    ones = np.ones(int(known.sum()))
    return csr_matrix((ones, (found.rows[known], places[known])), shape=(rows, len(keys)))  # which adds up


def frequent(found: Occurrences, min_count: int) -> np.ndarray:
    """Return the numbers of the n-grams that occur in this many rows at least, rising."""
    keys, numbers = np.unique(found.keys, return_inverse=True)
    pairs = np.unique(numbers.astype(np.int64) * (int(found.rows.max(initial=0)) + 1) + found.rows)
    rows = np.bincount(pairs // (int(found.rows.max(initial=0)) + 1), minlength=len(keys))
    return keys[rows >= min_count]


class Weights(ABC):
    """A way to weigh n-grams, fitted to the counts of the training rows.

    Args:
        counts: ``[N, F]``.
        targets: ``[N, C]``: how much each row counts for each class.
    """

    @abstractmethod
    def __init__(self, counts: csr_matrix, targets: np.ndarray): ...

    @abstractmethod
    def features(self, counts: csr_matrix) -> csr_matrix:
        """Return what the sum over n-grams of `table` reads, ``[N, F]``."""

    @abstractmethod
    def table(self, features: csr_matrix, targets: np.ndarray, inverse_penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Return a weight for each n-gram and class ``[F, C]``, and the bias ``[C]``."""


class NaiveBayes(Weights):
    """Presence of an n-gram, scaled by the log ratio of its shares in a class and outside.

    With more than two classes, each has a classifier of its own against all others.
    """

    def __init__(self, counts: csr_matrix, targets: np.ndarray, smoothing: float):
        present = self.features(counts)
        self.ratios = np.stack([self._ratios(present, side, smoothing) for side in self._sides(targets)])

    @staticmethod
    def _sides(targets: np.ndarray) -> list[np.ndarray]:
        """Return the targets ``[N, 2]`` of each classifier: outside its class and in it."""
        if targets.shape[1] == 2:
            return [targets]
        return [np.stack([targets.sum(axis=1) - own, own], axis=1) for own in targets.T]

    @staticmethod
    def _ratios(present: csr_matrix, side: np.ndarray, smoothing: float) -> np.ndarray:
        outside, inside = smoothing + (present.T @ side).T
        return np.log(inside / inside.sum()) - np.log(outside / outside.sum())

    def features(self, counts: csr_matrix) -> csr_matrix:
        return counts.sign()

    def table(self, features: csr_matrix, targets: np.ndarray, inverse_penalty: float) -> tuple[np.ndarray, np.ndarray]:
        found = [
            (ratios[:, None] * table, bias)
            for side, ratios in zip(self._sides(targets), self.ratios, strict=True)
            for table, bias in [logistic(features @ diags(ratios), side, inverse_penalty)]
        ]
        if len(found) == 1:
            return found[0]
        tables, biases = zip(*found, strict=True)
        return np.stack([each @ [-1, 1] for each in tables], axis=1), np.array([each @ [-1, 1] for each in biases])


class TfIdf(Weights):
    """Counts, scaled by the rarity of each n-gram, in rows of norm 1."""

    def __init__(self, counts: csr_matrix, targets: np.ndarray):
        self.transformer = TfidfTransformer().fit(counts)

    @property
    def rarity(self) -> np.ndarray:
        """Return the factor ``[F]`` of each n-gram."""
        return self.transformer.idf_

    def features(self, counts: csr_matrix) -> csr_matrix:
        return self.transformer.transform(counts)

    def table(self, features: csr_matrix, targets: np.ndarray, inverse_penalty: float) -> tuple[np.ndarray, np.ndarray]:
        return logistic(features, targets, inverse_penalty)


def logistic(features: csr_matrix, targets: np.ndarray, inverse_penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights ``[F, C]`` and the bias ``[C]`` of a logistic regression.

    Each row stands once for each class, with its target as weight. So a soft target is fitted by cross-entropy.
    """
    rows, classes = np.nonzero(targets)
    table, bias = np.zeros((features.shape[1], targets.shape[1])), np.full(targets.shape[1], ABSENT)
    present = np.unique(classes)
    bias[present] = 0.0
    if len(present) > 1:
        model = LogisticRegression(C=inverse_penalty, max_iter=1000)
        model.fit(features[rows], classes, sample_weight=targets[rows, classes])
        sides = np.array([[-0.5], [0.5]]) if len(present) == 2 else np.eye(len(present))  # two classes have one score
        table[:, present], bias[present] = (sides @ model.coef_).T, sides @ model.intercept_
    return table, bias
