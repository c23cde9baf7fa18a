"""Probes, shares of variance and CKA on vectors whose answer is known."""

import numpy as np
import pytest

from kd.comparison import representation

RANDOM = np.random.default_rng(0)
LABELS = np.arange(300) % 2
TOLD = RANDOM.normal(size=(300, 12)) + 2 * LABELS[:, None] * (np.arange(12) == 3)
NOISE = RANDOM.normal(size=(300, 12))


def test_a_probe_reads_what_is_there_and_nothing_else():
    right = [
        np.mean(representation.probe(layer[:200], LABELS[:200], layer[200:]) == LABELS[200:]) for layer in (TOLD, NOISE)
    ]
    assert right[0] > 0.8 and 0.35 < right[1] < 0.65


def test_the_bag_learns_words():
    texts = [["a", ("bad", "good")[label], "b"] for label in LABELS]
    assert (representation.bag_of_words(texts[:50], LABELS[:50], texts[50:]) == LABELS[50:]).all()


def test_the_share_of_variance_in_the_first_components():
    plane = RANDOM.normal(size=(100, 2)) @ RANDOM.normal(size=(2, 10)) + 5
    shares = representation.shares_of_variance(plane[:60], plane[60:])
    assert len(shares) == 10 and shares[1] == pytest.approx(1) and shares[0] < 0.999
    # Components of few rows with nothing in common carry little of new ones, though they carry all of their own.
    noise = RANDOM.normal(size=(60, 200))
    assert representation.shares_of_variance(noise[:30], noise[30:])[29] < 0.3


def test_cka_is_one_up_to_rotation_and_scale_and_about_zero_for_unrelated_vectors():
    rotation = np.linalg.qr(RANDOM.normal(size=(12, 12)))[0]
    found = representation.similarity([TOLD, NOISE], [3 * TOLD @ rotation + 1])
    assert found.shape == (1, 2) and found[0, 0] == pytest.approx(1, abs=1e-4) and abs(found[0, 1]) < 0.1
