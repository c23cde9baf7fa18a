"""Sentences of documents."""

import csv
from dataclasses import replace

import pytest

from kd.data.splits import text_keys
from kd.errors import KDError
from kd.transfer.base import LabelledTexts
from kd.transfer.documents import DOCUMENTS_AT_ONCE, Documents

TRAIN = LabelledTexts(["it's a good film , really .", "the plot is bad , isn't it ?"] * 10, [1, 0] * 10)


def made(step, train=TRAIN):
    return [text for part in step.parts(train, 0) for text in part]


def test_any_format_in_the_style_of_the_rows(tmp_path):
    with (tmp_path / "a.csv").open("w") as file:
        rows = [["body", "kind"], ["Good film, really! I liked it.<br />Yes.", "film"], ["A bad book.", "book"]]
        csv.writer(file).writerows(rows)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "one.txt").write_text("The plot is bad. Isn't it?\nYes.")
    expected = ["good film , really !", "i liked it .", "yes ."]
    assert made(Documents(str(tmp_path / "a.csv"), text="body", where={"kind": "film"})) == expected
    assert made(Documents(str(tmp_path / "folder"))) == ["the plot is bad .", "isn't it ?", "yes ."]


def test_rows_without_a_text_are_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "One. Two.", "n": 1}\n{"text": null, "n": 1}\n{"text": 5, "n": 1}\n')
    assert made(Documents(str(tmp_path / "a.jsonl"), where={"n": [1, 2]})) == ["one .", "two ."]


def test_documents_for_validation_and_test_are_not_cut(tmp_path):
    """As with data=imdb, whose reviews are the documents of imdb_sentences."""
    held_out = "It is good. And long."
    (tmp_path / "a.txt").write_text(f"{held_out}\nAnother one. Yes.\n")
    train = replace(TRAIN, held_out=frozenset({text_keys(held_out)[1]}))
    assert made(Documents(str(tmp_path / "a.txt")), train) == ["another one .", "yes ."]


def test_parts_hold_some_documents_each(tmp_path):
    (tmp_path / "a.txt").write_text("A film.\n" * (DOCUMENTS_AT_ONCE + 1))
    assert [len(list(part)) for part in Documents(str(tmp_path / "a.txt")).parts(TRAIN, 0)] == [DOCUMENTS_AT_ONCE, 1]


def test_long_sentences_of_another_language_are_a_fault():
    fault = Documents("x").fault(TRAIN)
    assert fault("der plot ist sehr dumm") is None, "too short to tell"
    assert fault("der hund geht heute leider nicht mehr in den wald") == "in another language"
    assert fault("a good day for a long walk in the wood") is None
    assert Documents("x", known_words=0).fault(TRAIN)("der hund geht heute nicht mehr in den wald") is None


GERMAN = ["der hund geht heute leider nicht mehr in den wald .", "wer will , der kann .", "das ist der plot ."]


def test_documents_of_another_language_are_refused():
    with pytest.raises(KDError, match=r"expected documents in the language .*, where 6 % of the words") as error:
        Documents("x").require(TRAIN, lambda: iter(GERMAN))
    assert "\n" not in str(error.value)
    Documents("x", known_words=0).require(TRAIN, lambda: iter(GERMAN))
    Documents("x").require(TRAIN, lambda: iter(TRAIN.texts))


def test_the_nearest_are_those_like_the_rows():
    texts = ["a good film .", "the plot is bad .", "trains run late .", "buses run late too ."] * 5
    distance = Documents("x", nearest=True, most=2).distance(TRAIN, lambda: iter(texts))
    assert set(sorted(set(texts), key=distance)[:2]) == {"a good film .", "the plot is bad ."}
    assert Documents("x").distance(TRAIN, lambda: iter(texts)) is None


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,1\n")
    with pytest.raises(KDError, match="has no column 'body'"):
        made(Documents(str(tmp_path / "a.csv"), text="body"))
