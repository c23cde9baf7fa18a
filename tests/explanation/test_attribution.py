"""Influence by leaving words out, on a classifier whose true influences are known."""

import numpy as np
import pytest

from kd.errors import KDError
from kd.explanation.attribution import Model, occlusion, without, words_of
from tests.explanation.additive import Additive


def test_occlusion_finds_the_weights_of_a_sum_of_words():
    model = Model("student", Additive({"good": 2.0, "dull": -1.5, "film": 0.25}), ["negative", "positive"])
    found = occlusion(model, ["a good film", "dull"], np.array([1, 0]))
    assert np.allclose(found[0].values, [0, 2, 0.25]) and found[0].odds == pytest.approx(2.25)
    assert np.allclose(found[1].values, [1.5]), "towards the label negative"
    assert found[0].gap is None, "leaving words out does not promise to be complete"


def test_labels_in_another_order_are_put_in_the_students():
    turned = Model("teacher", Additive({"good": 2.0}, names=("positive", "negative")), ["negative", "positive"])
    assert turned.logits(["good"]).tolist() == [[0.0, 2.0]]
    with pytest.raises(KDError, match="expected the labels no, yes in the teacher"):
        Model("teacher", Additive({}), ["no", "yes"])


def test_words_are_cut_at_marks_but_not_at_apostrophes():
    text = "It isn't «bad», 很好 हिन्दी..."
    spans = words_of(text)
    assert [text[start:end] for start, end in spans] == ["It", "isn't", "«", "bad", "»,", "很", "好", "हिन्दी", "..."]
    assert without(text, spans, [0, 2, 3, 4, 8]) == "isn't 很好 हिन्दी"
    assert without("a b", words_of("a b"), [1, 0]) == ""


def test_a_very_long_text_is_read_in_small_batches_and_cut_where_the_classifier_stops():
    class Short(Additive):
        max_length, seen = 4, []

        def logits(self, texts, batch_size=64):
            self.seen += [(len(texts), max(map(len, texts[1:]), default=0), batch_size)]
            return super().logits([" ".join(text.split()[:4]) for text in texts], batch_size)

    text = "a good film and " + "good " * 20_000
    model = Model("student", Short({"good": 2.0}), ["negative", "positive"])
    (found,) = occlusion(model, [text], np.array([1]))
    assert (
        found.values[:5].tolist() == [-2, 0, -2, -2, 0] and len(found.values) == 20_004 and not found.values[5:].any()
    )
    ((texts, letters, _),) = Short.seen
    assert texts == 5 and letters < 30
    Short.max_length = 8192
    model.logits([text])
    assert Short.seen[-1][2] == 2, "16,384 tokens in a batch"
