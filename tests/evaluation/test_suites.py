"""Contrast pairs and suites, on a classifier that counts two words."""

import json

import numpy as np
import pytest

from kd.errors import KDError
from kd.evaluation.suites import contrast_sets, suite

NAMES = ["bad", "good"]


def counts(texts):
    return np.array([[0.1, text.count("warm") - text.count("cold")] for text in texts])


def line(kind, data, **more):
    return {"name": "a test", "capability": "Vocabulary", "type": kind, "data": data, **more}


def written(path, *tests):
    path.write_text("\n\n".join(map(json.dumps, tests)) + "\n")
    return path


def test_the_three_types(tmp_path):
    tests = [
        line("MFT", ["warm", "cold", "it is not cold"], labels=["good", "bad", "good"]),
        line("MFT", [["warm", "warm day"], ["warm", "cold"]], labels=1),
        line("INV", [["warm", "warm day"], ["warm", "cold"]]),
        line("INV", [["warm", "cold"]], tolerance=0.9),
        line("DIR", [["warm", "warm warm"], ["warm", "warm day"], ["warm", "cold"]], label="good", increasing=True),
        line("DIR", [["warm", "warm cold"]], increasing=False),
    ]
    found = suite(written(tmp_path / "suite.jsonl", *tests), NAMES, counts)
    assert [(one["cases"], one["failures"]) for one in found] == [(3, 1), (2, 1), (2, 1), (1, 0), (3, 1), (1, 0)]
    assert found[0]["example"] == "it is not cold" and found[3]["example"] is None
    assert found[0]["rate"]["value"] == pytest.approx(1 / 3) and found[0]["rate"]["high"] > 0.6
    (tmp_path / "list.json").write_text(json.dumps(tests))
    assert suite(tmp_path / "list.json", NAMES, counts) == found


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        (line("MFT", ["warm"], labels="neutral"), "label 'neutral' is neither one of the label names"),
        (line("MFT", ["warm"], labels=2), "label '2' is neither one of the label names"),
        (line("MFT", ["warm"]), "expected labels for MFT"),
        (line("MFT", ["warm"], labels=["good", "bad"]), "expected a label a case, 1, found 2"),
        (line("INV", ["warm"]), "expected at least two texts in each case of INV"),
        (line("DIR", [["warm", "cold"]]), "expected increasing for DIR"),
        (line("NEW", ["warm"], labels=1), "found type: Input should be 'MFT', 'INV' or 'DIR'"),
        (line("MFT", [], labels=1), "found data: List should have at least 1 item"),
        (["no object"], "Input should be a valid dictionary"),
    ],
)
def test_other_suites_are_refused(test, sentence, tmp_path):
    with pytest.raises(KDError) as raised:
        suite(written(tmp_path / "suite.jsonl", test), NAMES, counts)
    assert sentence in str(raised.value)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "suite.pkl").write_bytes(b"\x80\x04\x95\xff")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "text.jsonl").write_text("a film\n")
    for name, sentence in {
        "suite.pkl": "kd reads no pickle",
        "empty.jsonl": "found an empty file",
        "text.jsonl": "found no JSON",
        "none.jsonl": r"\(FileNotFoundError\); check the path",
    }.items():
        with pytest.raises(KDError, match=sentence):
            suite(tmp_path / name, NAMES, counts)


def test_contrast_sets():
    right = np.array([True, True, True, False, True, True, True])
    found = contrast_sets("pairs.csv", ["a", "b", "a", "b", "c", "c", "c"], right)
    assert (found["sets"], found["rows"], found["consistency"]["value"]) == (3, 7, pytest.approx(2 / 3))
    with pytest.raises(KDError, match="expected at least two rows of each pair, found 1 ids with one, first 'b'"):
        contrast_sets("pairs.csv", ["a", "b", "a"], right[:3])
