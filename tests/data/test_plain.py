"""JSON, fastText, lines, folders of texts, and texts beside a file of labels."""

import json

import pytest

from kd.data.dialect import Reading
from kd.data.files import Place, read_rows
from kd.data.plain import is_fasttext
from kd.errors import KDError
from tests.data.writing import raw

OBJECTS = [{"text": "a film", "label": 1}, {"text": "so dull", "label": 0}]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_of_objects_is_read_whatever_the_suffix(tmp_path, name, indent):
    rows = read_rows(raw(tmp_path / name, json.dumps(OBJECTS, indent=indent)))
    assert rows.in_memory and rows.columns == ["text", "label"]
    assert list(rows) == list(enumerate(OBJECTS, start=1))


def test_objects_line_by_line_are_not_held_in_memory(tmp_path):
    rows = read_rows(raw(tmp_path / "a.json", "\n".join(map(json.dumps, OBJECTS)) + "\n\n"))
    assert not rows.in_memory and list(rows) == list(enumerate(OBJECTS, start=1))
    assert rows.blank.count == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is an empty list; expected a list of objects"),
        ("[1, 2]", "line 1 holds a JSON list"),
        ("[\n1]", "entry 1 is a JSON int; expected a list of objects"),
        ('[{"text": "x"}, 3]', "entry 2 is a JSON int"),
        ('[{"text": "x"}', "is not JSON .*expected a list of objects, or one in each line"),
        ('{\n "data": [1]\n}', "line 1 is not JSON .*one complete object in each line, or a list of objects"),
        ("[" * 100_000, "is not JSON"),
        ("", "is empty; expected one JSON object"),
    ],
)
def test_other_json_gets_one_sentence(tmp_path, content, message):
    with pytest.raises(KDError, match=message) as caught:
        list(read_rows(raw(tmp_path / "a.json", content)))
    assert "\n" not in str(caught.value)


def test_an_object_of_other_keys_names_them(tmp_path):
    rows = read_rows(raw(tmp_path / "squad.json", '{"version": "1.1", "data": []}\n'))
    with pytest.raises(KDError, match="no column 'text'; it has 'version', 'data'"):
        rows.require("text", "data.text")


def test_fasttext_lines(tmp_path):
    rows = read_rows(
        raw(tmp_path / "a.txt", "__label__very_good a film , fine\n\n__label__bad\tso dull\n__label__bad\n")
    )
    assert rows.taken == "fastText" and rows.columns == ["text", "label"]
    assert [(line, row["label"], row["text"]) for line, row in rows] == [
        (1, "very_good", "a film , fine"),
        (3, "bad", "so dull"),
        (4, "bad", ""),
    ]
    with pytest.raises(KDError, match=r"line 1 has 2 labels \(a, b\); expected one label for each text"):
        list(read_rows(raw(tmp_path / "b.txt", "__label__a __label__b both\n")))
    assert not is_fasttext(["__label__a x\n", "other\n"]) and not is_fasttext(["\n"])


def test_lines_without_a_label_are_texts_and_tabs_make_columns(tmp_path):
    rows = read_rows(raw(tmp_path / "a.txt", "a film, fine\n\nso dull\n"))
    assert rows.columns == ["text"] and [(line, row["text"]) for line, row in rows] == [
        (1, "a film, fine"),
        (3, "so dull"),
    ]
    rows = read_rows(raw(tmp_path / "b.txt", "label\ttext\nham\tx, y\n"), Reading(wanted=("text", "label")))
    assert [row for _, row in rows] == [{"label": "ham", "text": "x, y"}]


def test_a_folder_of_texts_has_one_label(tmp_path):
    for name in ("b.txt", "a.txt"):
        raw(tmp_path / name, f"text of {name}\nmore\n")
    rows = read_rows(Place(tmp_path, label="pos"))
    assert list(rows) == [
        (1, {"text": "text of a.txt\nmore", "label": "pos"}),
        (2, {"text": "text of b.txt\nmore", "label": "pos"}),
    ]


def test_texts_and_labels_in_two_files(tmp_path):
    texts, labels = raw(tmp_path / "train_text.txt", "a\nb\n"), raw(tmp_path / "train_labels.txt", "1\n0\n")
    rows = read_rows(Place(texts, labels=labels, names=("bad", "good")))
    assert rows.names == {"label": ["bad", "good"]}
    assert list(rows) == [(1, {"text": "a", "label": "1"}), (2, {"text": "b", "label": "0"})]
    raw(labels, "1\n")
    with pytest.raises(KDError, match=r"train_labels.txt has 1 lines and train_text.txt has more"):
        list(read_rows(Place(texts, labels=labels)))
