"""The comparison of an export with its model."""

import numpy as np
import pytest

from kd.errors import KDError
from kd.export.checks import ODD, Rows, compare, require_few_flips

TEXTS = [f"text {number}" for number in range(40)]
LOGITS = {text: [number - 20.5, 0.0] for number, text in enumerate(TEXTS)} | {text: [1.0, 0.0] for text in ODD}


def original(texts, batch_size):
    return np.array([LOGITS[text] for text in texts])


def moved(texts, batch_size):
    return original(texts, batch_size) + np.array([1.0, 0.0])


def test_it_counts_flips_and_compares_with_labels_and_teacher():
    labels = np.array([1] * 21 + [0] * 19)
    teacher = np.where(np.arange(40) < 10, 1, -100)
    found = compare(original, moved, Rows(TEXTS, labels, teacher))
    assert found["texts"] == 40 and found["flips"] == 1
    assert found["accuracy_before"] == 1.0 and found["accuracy_after"] == 39 / 40
    assert found["agreement_before"] == found["agreement_after"] == 1.0
    expected = 1 / (1 + np.exp(-0.5)) - 1 / (1 + np.exp(0.5))
    np.testing.assert_allclose(found["largest_difference"], expected)
    good = {"flips": 0, "flips_alone": 0, "texts": 40, "largest_difference_of_odd_texts": 0.1}
    require_few_flips(good, "int8")
    for value in (0.11, float("nan")):
        with pytest.raises(KDError, match="of an empty, a long and an unknown text to change by at most"):
            require_few_flips({**good, "largest_difference_of_odd_texts": value}, "int8")
    with pytest.raises(KDError, match=r"--to int8: expected at most 0\.5% of the labels to change, found 1 of 40"):
        require_few_flips({**found, "largest_difference_of_odd_texts": 0}, "int8")


def test_an_export_that_depends_on_the_batch_is_refused():
    def by_batch(texts, batch_size):
        return original(texts, batch_size) * (-1 if batch_size == 1 else 1)

    with pytest.raises(KDError, match=r"the same label for a text alone and in a batch, found others for 100%"):
        require_few_flips(compare(original, by_batch, Rows(TEXTS)), "int8")
