"""The three rules of Tang et al. 2019."""

import gzip
import json

import pytest

from kd.transfer.rules import ROWS_AT_ONCE, Rules, tags_of
from kd.transfer.tagger import Tagger


def made(step, train, seed=0):
    return [text for part in step.parts(train, seed) for text in part]


def test_the_shares_of_the_recipe(train):
    texts = made(Rules(rounds=20, path=None, replace=0, ngram=0), train)
    words = [word for text in texts for word in text.split()]
    assert len(texts) == 20 * len(train.texts)
    assert words.count("[MASK]") / len(words) == pytest.approx(0.1, abs=0.01)


def test_an_ngram_is_a_piece_of_its_row(train):
    texts = made(Rules(rounds=1, path=None, mask=0, replace=0, ngram=1, longest_ngram=3), train)
    assert all(text in row and 1 <= len(text.split()) <= 3 for text, row in zip(texts, train.texts, strict=True))


def test_a_replacement_has_the_same_part_of_speech(train, tmp_path):
    tagdict = dict.fromkeys(["film", "plot", "story"], "NOUN") | {"is": "VERB"}
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"classes": ["X"], "tagdict": tagdict, "weights": {}}).encode()))
    texts = made(Rules(rounds=1, path=str(path), mask=0, replace=1, ngram=0), train)
    assert texts != train.texts
    nouns = {"film", "plot", "story"}
    for text, row in zip(texts, train.texts, strict=True):
        for word, before in zip(text.split(), row.split(), strict=True):
            assert (word in nouns) == (before in nouns)
            assert (word == "is") == (before == "is")


def test_marks_are_tags_of_their_own():
    assert tags_of(["good", ",", "film"], None) == ["word", ",", "word"]


def test_the_seed_decides(train):
    step = Rules(rounds=2, path=None)
    assert made(step, train) == made(step, train)
    assert made(step, train) != made(step, train, seed=1)
    assert len(list(step.parts(train, 0))) == 2 * -(-len(train.texts) // ROWS_AT_ONCE)


def test_the_downloaded_tagger_if_it_is_there():
    from kd.storage import assets

    path = assets.home() / "assets" / "english-pos-tagger" / "tagger.json.gz"
    if not path.is_file():
        pytest.skip("asset:english-pos-tagger is not downloaded")
    tags = tags_of(
        ["the", "movie", "was", "surprisingly", "funny", ",", "and", "it", "made", "me", "laugh", "."], Tagger(path)
    )
    assert [tag.partition("|")[0] for tag in tags[:5]] == ["DET", "NOUN", "AUX", "ADV", "ADJ"]
