"""Compare the layers of two models: what a linear classifier reads in them, their widths, and their similarity.

N rows, d the width of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kd.losses import relation


def probe(train: np.ndarray, labels: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the labels ``[M]`` that a linear probe gives to held-out vectors ``[M, d]``.

    Args:
        train, labels: vectors ``[N, d]`` that the probe is fitted to, and their labels.

    Source: Alain and Bengio 2017, https://arxiv.org/abs/1610.01644
    """
    # With hundreds of dimensions and rows, a weaker penalty fits the training rows by heart.
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)).fit(train, labels)
    return fitted.predict(held)


def bag_of_words(pieces: Sequence[Sequence[str]], labels: np.ndarray, held: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the labels that a linear classifier of pieces and pairs of pieces gives to held-out texts."""
    words = TfidfVectorizer(tokenizer=list, token_pattern=None, lowercase=False, ngram_range=(1, 2), sublinear_tf=True)
    fitted = make_pipeline(words, LogisticRegression(C=4.0, max_iter=300)).fit(pieces, labels)
    return fitted.predict(held)


def shares_of_variance(train: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return ``[d]``: the share of the variance of held-out vectors in the first 1, 2, ... principal components.

    The components are those of ``train`` ``[N, d]``, so that a share is not too high because N is small.
    """
    mean = train.mean(axis=0)
    components = np.linalg.svd(train - mean, full_matrices=False)[2]
    centred = held - mean
    total = (centred**2).sum()
    return ((centred @ components.T) ** 2).sum(axis=0).cumsum() / total if total > 0 else np.ones(len(components))


def similarity(teacher: Sequence[np.ndarray], student: Sequence[np.ndarray]) -> np.ndarray:
    """Return the unbiased linear CKA ``[student layers, teacher layers]``: 1 equal up to rotation, 0 unrelated.

    Source: see `kd.losses.relation.cka`.
    """
    theirs, own = ([torch.from_numpy(layer) for layer in layers] for layers in (teacher, student))
    return np.array([[1 - float(relation.cka(one, other)) for other in theirs] for one in own])
