"""The averaged perceptron."""

import gzip
import json

import pytest

from kd.errors import KDError
from kd.transfer.tagger import Tagger, features

CONTENT = {
    "classes": ["NOUN", "VERB"],
    "tagdict": {"the": "DET"},
    "weights": {"bias": {"NOUN": 0.5}, "t-1 NOUN": {"VERB": 2.0}, "w dogs": {"NOUN": 3.0}, "w+1 home": {"VERB": 1.0}},
}


def written(path, content):
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    return path


def test_words_by_the_dictionary_then_by_weights(tmp_path):
    tagger = Tagger(written(tmp_path / "t.json.gz", CONTENT))
    assert tagger.tag(["The", "dogs", "run", "home"]) == ["DET", "NOUN", "VERB", "NOUN"]
    assert tagger.tag([]) == []


def test_features_are_those_of_the_weights():
    found = list(features(0, "Runs2", ["runs2", "home"], "<s>", "<s>"))
    assert found[:5] == ["bias", "suf3 ns2", "suf2 s2", "suf1 2", "pre1 r"]
    assert {"shape Xd", "w runs2", "t-1t-2 <s> <s>", "w-1 <s>", "w-2 <s>", "w+1 home", "w+2 </s>"} <= set(found)


@pytest.mark.parametrize("content", [{}, [], {"classes": []}, 5])
def test_another_file_is_refused(tmp_path, content):
    with pytest.raises(KDError, match="expected a tagger as gzipped JSON"):
        Tagger(written(tmp_path / "t.json.gz", content))


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "t.json.gz").write_bytes(b"no gzip")
    with pytest.raises(KDError, match="expected a tagger"):
        Tagger(tmp_path / "t.json.gz")
