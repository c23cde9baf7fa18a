"""Edits of the training rows."""

import random

import pytest

from kd.errors import KDError
from kd.transfer.edits import WORDNET, Edits, delete, insert, replace, swap, wordnet

LINES = {
    "data.noun": "  1 a licence\n00001740 03 n 02 film 0 motion_picture 0 001 @ 00001930 n 0000 | a story\n",
    "data.verb": "00001740 29 v 01 act 0 000 | do\n",
    "data.adj": "00001740 00 a 03 Warm 0 lovely(p) 0 kind 1 000 | friendly\n",
    "data.adv": "",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in LINES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def made(step, train, seed=0):
    return [text for part in step.parts(train, seed) for text in part]


def test_synonyms_of_wordnet(folder):
    found = wordnet(folder)
    assert found["film"] == ["motion picture"] and found["warm"] == ["kind", "lovely"]
    assert "act" not in found, "it has no synonym"


def test_each_edit():
    row, synonyms, numbers = ["a", "warm", "film"], {"warm": ["kind"]}, random.Random(0)
    swapped = swap(row, synonyms, numbers)
    assert sorted(swapped) == sorted(row) and swapped != row
    assert len(delete(row, synonyms, numbers)) == 2
    assert replace(row, synonyms, numbers) == ["a", "kind", "film"]
    assert sorted(insert(row, synonyms, numbers)) == ["a", "film", "kind", "warm"]
    for edit in (swap, delete, replace, insert):
        assert edit(["film"], {}, numbers) == ["film"]


def test_kinds_take_turns_and_the_seed_decides(train, folder):
    plain, with_synonyms = Edits(rounds=2, share=0.2), Edits(rounds=2, path=str(folder))
    assert made(plain, train) == made(plain, train) != made(plain, train, seed=1)
    assert len(made(plain, train)) == 2 * len(train.texts)
    assert "motion picture" in " ".join(made(with_synonyms, train)) and "motion" not in " ".join(made(plain, train))


@pytest.mark.parametrize("harm", ["missing", "other"])
def test_another_folder_is_refused(folder, harm):
    (folder / WORDNET[1]).unlink() if harm == "missing" else (folder / WORDNET[1]).write_text("no wordnet\n")
    with pytest.raises(KDError, match=r"expected WordNet's files data.noun, .* give its folder dict"):
        wordnet(folder)
