"""Changed texts, and what they say of a classifier whose weakness is known."""

import random

import numpy as np

from kd.evaluation.robustness import changes, robustness, typos
from kd.transfer.style import Style
from tests.transfer.test_edits import LINES

TEXTS = ["a warm film , really .", "it's dull and slow , so dull .", "?!"] * 20


def changed(name, text, folder=None, seed=0):
    return changes(Style.of(TEXTS), folder)[name](text, random.Random(seed))


def test_each_change(tmp_path):
    for name, content in LINES.items():
        (tmp_path / name).write_text(content)
    assert changed("no punctuation", "it's well-made , is it ? (yes)") == "it's well-made is it yes"
    assert changed("upper case", "It is") == "IT IS" and changed("lower case", "It is") == "it is"
    mixed = changed("word order shuffled", "1 2 3 4 5")
    assert sorted(mixed) == sorted("1 2 3 4 5") and mixed != "1 2 3 4 5"
    assert changed("synonyms", "a warm film", tmp_path) in {"a kind film", "a lovely film", "a warm motion picture"}
    assert "synonyms" not in changes(Style.of(TEXTS), None)


def test_a_typo_changes_few_letters_of_a_longer_word():
    numbers = random.Random(1)
    made = [typos("the wonderful film", numbers) for _ in range(50)]
    assert len(set(made)) > 5 and all(text.startswith("the ") and len(text) in (17, 18, 19) for text in made)
    assert typos("a b !", numbers) == "a b !"


def test_the_weakness_of_a_classifier_is_found():
    labels = np.array([1, 0, 0] * 20)

    def reads_case(texts):
        return np.array([[0.0, 1.0 if "warm" in text else -1.0] for text in texts])

    before = reads_case(TEXTS)
    found = {one["name"]: one for one in robustness(TEXTS, labels, before, reads_case)}
    assert found["upper case"]["flipped"]["value"] == 1 / 3 and found["upper case"]["difference"]["high"] < 0
    assert found["word order shuffled"]["moved"]["value"] == 0 and found["upper case"]["moved"]["value"] > 0.1
    assert found["word order shuffled"]["flipped"]["value"] == 0 and found["lower case"]["changed"] == 0
    assert found["upper case"]["p_value"] < 0.001 and found["no punctuation"]["p_value"] == 1
    again = {one["name"]: one for one in robustness(TEXTS, labels, before, reads_case)}
    assert again == found, "the seed decides"


def test_word_order_that_moves_no_label_still_moves_probabilities():
    def reads_first_word(texts):
        return np.array([[0.0, 3.0 if text.startswith("a ") else 2.0] for text in texts])

    found = robustness(TEXTS, np.ones(60, int), reads_first_word(TEXTS), reads_first_word)[-1]
    assert found["name"] == "word order shuffled" and found["flipped"]["value"] == 0
    assert 0.01 < found["moved"]["value"] < 0.08 and found["moved"]["low"] > 0
