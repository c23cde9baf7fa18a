"""Files of answers: every format and kind gives the same logits, and each kind of bad row is refused in a sentence."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from kd.errors import KDError
from kd.teacher.answers_file import read_answers

NAMES = ["negative", "positive"]
TEXTS = ["a warm film", "a dull plot", "very funny"]
GIVEN = np.array([[0.1, 0.9], [0.75, 0.25], [0.5, 0.5]])


def write(path: Path, rows: list[dict]) -> Path:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case ".csv":
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
    return path


def read(path: Path, names=NAMES, temperature=1.0, floor=1e-4):
    return read_answers(path, names, "text", "label", "utf-8", temperature, floor)


def probabilities(path: Path, **options) -> np.ndarray:
    return softmax(read(path, **options).of(TEXTS), axis=1)


def rows_of(kind: str, by_class: bool, values: np.ndarray) -> list[dict]:
    begins = {"probabilities": "probability_", "logits": "logit_", "scores": "score_"}[kind]
    rows = []
    for text, row in zip(TEXTS, values.tolist(), strict=True):
        named = {f"{begins}{name}": value for name, value in zip(NAMES, row, strict=True)}
        rows.append({"text": text, **(dict(reversed(named.items())) if by_class else {kind: row})})
    return rows


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("by_class", [True, False])
@pytest.mark.parametrize(
    ("kind", "values"), [("probabilities", GIVEN), ("logits", np.log(GIVEN)), ("scores", 20 * GIVEN)]
)
def test_formats_and_kinds_mean_the_same(tmp_path, suffix, by_class, kind, values):
    path = write(tmp_path / f"answers{suffix}", rows_of(kind, by_class, values))
    np.testing.assert_allclose(probabilities(path), GIVEN, atol=1e-6)
    assert read(path).kind == kind


def test_objects_by_class_and_labels_by_name_or_number(tmp_path):
    objects = [{"text": TEXTS[0], "probabilities": {"positive": 0.9, "negative": 0.1}}]
    np.testing.assert_allclose(probabilities(write(tmp_path / "a.jsonl", objects))[0], [0.1, 0.9], atol=1e-6)
    for label in ("positive", "1", 1):
        path = write(tmp_path / "b.jsonl", [{"text": TEXTS[0], "label": label}])
        np.testing.assert_allclose(probabilities(path, floor=0.01)[0], np.array([0.01, 1]) / 1.01, atol=1e-6)
    assert read(path).kind == "label"


def test_a_gold_label_beside_other_answers_is_not_read(tmp_path):
    rows = [{"text": TEXTS[0], "label": "negative", "prediction": "positive", "probabilities": [0.2, 0.8]}]
    np.testing.assert_allclose(probabilities(write(tmp_path / "a.jsonl", rows))[0], [0.2, 0.8], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-30, 30), min_size=2, max_size=2), st.floats(0.1, 10))
def test_the_temperature_divides_the_logits(tmp_path_factory, row, temperature):
    path = write(tmp_path_factory.mktemp("t") / "a.jsonl", [{"text": TEXTS[0], "logits": row}])
    found = read(path, temperature=temperature).of(TEXTS[:1])[0]
    np.testing.assert_allclose(found, np.array(row) / temperature, rtol=1e-5, atol=1e-5)


def test_texts_are_found_as_duplicates_are(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "  A Warm\tFILM ", "logits": [1, 2]}, {"text": "x", "logits": [0, 1]}])
    found = read(path).of([*TEXTS, "a  warm film"])
    np.testing.assert_array_equal(found[[0, 3]], [[1, 2], [1, 2]])
    assert np.isnan(found[1:3]).all()


def test_the_same_answer_twice_is_one_and_empty_rows_are_left_out(tmp_path, caplog):
    rows = [{"text": TEXTS[0], "logits": [1, 2]}, {"text": TEXTS[0], "logits": [1, 2]}, {"text": " ", "logits": [0, 1]}]
    table = read(write(tmp_path / "a.jsonl", [*rows, {"text": TEXTS[1], "logits": None}]))
    assert len(table.keys) == len(table.logits) == 1 and "2 rows of" in caplog.text


P = "probabilities"
BAD = {
    "sum": ([{P: [0.6, 0.6]}], r"row 1: expected probabilities whose sum is 1, found 0\.6, 0\.6"),
    "range": ([{P: [1.5, -0.5]}], r"row 1: expected probabilities in \[0, 1\], found 1\.5, -0\.5"),
    "nan": ([{P: [0.5, 0.5]}, {P: [float("nan"), 1]}], r"row 2: expected finite probabilities, found nan, 1"),
    "inf": ([{"logits": [float("inf"), 1]}], "row 1: expected finite logits, found inf"),
    "votes": ([{"scores": [0, 0]}], "row 1: expected scores of at least 0, one of them above 0, found 0, 0"),
    "too many": ([{P: [0.2, 0.3, 0.5]}], "expected 2 probabilities, one for each of negative, positive, found 3"),
    "words": ([{P: ["much", "little"]}], "expected probabilities as numbers, found"),
    "no list": ([{P: "high"}], "expected a JSON list of numbers, found 'high'"),
    "object": ([{P: {"good": 1, "bad": 0}}], "expected answers for the classes negative, positive, found good, bad"),
    "classes": ([{"score_good": 1, "score_bad": 0}], "expected answers for the classes negative, positive, found good"),
    "a class": ([{"score_negative": 1}], "expected answers for the classes negative, positive, found negative;"),
    "label": ([{"label": "good"}], "expected a label out of negative, positive or its number, found 'good'"),
    "number": ([{"label": 2}], "expected a label out of negative, positive or its number, found '2'"),
    "two kinds": ([{P: [0, 1], "logits": [0, 1]}], "has two kinds of answers, in the columns 'probabilities' and 'log"),
    "two forms": ([{P: [0, 1], "probability_negative": 0}], "two kinds of answers"),
    "no kind": (
        [{"answer": "positive"}],
        "expected answers in .*: one of the columns probabilities or probability_NAME",
    ),
    "all empty": ([{P: None}], "expected rows with a text and probabilities in .*, found none"),
    "half empty": ([{"logit_negative": 1, "logit_positive": None}], "expected logits as numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused(tmp_path, case):
    rows, message = BAD[case]
    named = [{"text": f"text {number}", **row} for number, row in enumerate(rows)]
    with pytest.raises(KDError, match=message):
        read(write(tmp_path / "a.jsonl", named))


def test_different_answers_for_one_text_are_refused(tmp_path):
    rows = [{"text": "x", "logits": [1, 2]}, {"text": "y", "logits": [1, 2]}, {"text": " X", "logits": [2, 1]}]
    with pytest.raises(KDError, match="rows 1 and 3 have the same text and different answers"):
        read(write(tmp_path / "a.jsonl", rows))


def test_an_empty_file_or_no_text_column_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(KDError, match="empty"):
        read(tmp_path / "empty.jsonl")
    with pytest.raises(KDError, match=r"has no column 'text'; it has 'review', 'logits'; set teacher\.text"):
        read(write(tmp_path / "a.jsonl", [{"review": "x", "logits": [1, 2]}]))


@pytest.mark.parametrize("cell", ["xyz", "ab" * 15, "g" * 32])
def test_a_hash_that_is_none_is_refused(tmp_path, cell):
    path = write(tmp_path / "answers.jsonl", [{"text_sha256": cell, "logits": [0, 1]}])
    with pytest.raises(KDError, match=rf"row 1: expected 32 hexadecimal digits in text_sha256, found '{cell}'"):
        read(path)
