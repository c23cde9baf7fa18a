"""Words for women and men are exchanged."""

import pytest

from kd.transfer.base import LabelledTexts
from kd.transfer.counterfactual import Counterfactual, exchanged, people, swapped


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("she thinks he 's great", "he thinks she 's great"),
        ("her film gave her a name .", "his film gave him a name ."),
        ("a story about her , not him", "a story about him , not her"),
        ("His role is hers; the choice was his.", "Her role is his; the choice was hers."),
        ("EMILY met Hyun-ju's sister", "JAMES met Min-jun's brother"),
        ("the hero is here, and so is the shepherd", "the heroine is here, and so is the shepherd"),
        ("a warm film", "a warm film"),
    ],
)
def test_texts_after_the_exchange(text, other):
    assert swapped(text) == other


def test_each_word_has_one_counterpart():
    pairs = [*people()["words"], *(pair for pairs in people()["names"].values() for pair in pairs)]
    words = [word for pair in pairs for word in pair]
    assert len(words) == len(set(words)), "a word twice would be exchanged one way only"
    assert all(swapped(swapped(word)) == word for word in words)
    assert len({len(pairs) for pairs in people()["names"].values()}) == 1, "an audit pairs the names of two origins"
    assert set(words) <= set(exchanged()[0])


def test_only_rows_about_people_make_texts():
    train = LabelledTexts(["a warm film", "she is wonderful", "Her Brother is dull"] * 1000, [1, 1, 0] * 1000)
    parts = [list(part) for part in Counterfactual().parts(train, seed=0)]
    assert len(parts) == 2 and sum(map(len, parts)) == 2000
    assert set(parts[0] + parts[1]) == {"he is wonderful", "His Sister is dull"}
