"""Labels that flip when words for women and men are exchanged."""

import numpy as np

from kd.audit.flips import flips


class Against:
    """Says "bad" of texts with some word."""

    def __init__(self, word):
        self.word = word

    def __call__(self, texts):
        bad = np.array([0.9 if self.word in text.split() else 0.2 for text in texts])
        return np.stack([bad, 1 - bad], axis=1)


def test_flips_and_their_examples():
    texts = ["she is fine", "he is fine", "a film", "her plot", "a woman runs"]
    found = flips("rows", texts, {"student": Against("she"), "alone": Against("film")}, ["bad", "good"])
    assert (found["texts"], found["pairs"]) == (5, 4)
    assert found["shares"]["student"]["share"] == 0.5 and found["shares"]["alone"]["share"] == 0
    assert found["shares"]["student"]["p"] is None and found["shares"]["alone"]["p"] == 0.5, "2 of 4 rows, all one way"
    assert found["shares"]["student"]["low"] < 0.5 < found["shares"]["student"]["high"]
    assert found["examples"] == [
        ["she is fine", "he is fine", "bad", "good"],
        ["he is fine", "she is fine", "good", "bad"],
    ]
    assert flips("rows", ["a film"], {"student": Against("she")}, ["bad", "good"]) is None
