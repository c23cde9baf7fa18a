"""Label names and ids, given or found in the data."""

import pytest

from kd.data.labels import LabelReader, require_label_names
from kd.data.sources import from_files
from kd.errors import KDError
from tests.data.writing import NAMES, contents, reviews, write


@pytest.mark.parametrize(
    ("values", "label_names", "expected"),
    [
        (["neg", "pos"], ["pos", "neg"], [1, 0]),
        (["0", "1"], NAMES, [0, 1]),
        ([" 0 ", "1.0"], NAMES, [0, 1]),
        (["positive", "0"], NAMES, [1, 0]),
        (["1", "0"], ["1", "0"], [0, 1]),  # a name goes before an id
        (["pos", "neg"], None, [1, 0]),
        (["10", "9"], None, [1, 0]),  # as numbers
        (["-1", "1"], None, [0, 1]),
    ],
)
def test_labels_by_name_id_or_value(tmp_path, values, label_names, expected):
    rows = [{"text": f"row {i}", "label": values[i % 2]} for i in range(100)]
    splits = from_files(str(write(tmp_path / "a.csv", rows)), label_names=label_names)
    assert {text: label for texts in contents(splits).values() for text, label in texts} == {
        f"row {i}": expected[i % 2] for i in range(100)
    }
    assert len(splits.label_names) == 2


def test_labels_of_other_types(tmp_path):
    rows = [{"text": f"row {i}", "label": [0.0, 1.0, None, float("nan")][i % 4]} for i in range(200)]
    splits = from_files(str(write(tmp_path / "a.parquet", rows)))
    assert (splits.label_names, splits.counts["unlabelled"]) == (["0", "1"], 100)
    rows = [{"text": f"row {i}", "label": i % 2 == 1} for i in range(100)]
    assert from_files(str(write(tmp_path / "a.jsonl", rows)), label_names=NAMES).counts["unlabelled"] == 0


def test_a_column_of_texts_is_no_label_column(tmp_path):
    with pytest.raises(KDError, match="more than 1,000 different values"):
        from_files(str(write(tmp_path / "a.csv", reviews(1100))), text="label", label="text")


def test_codes_become_ids_in_the_order_of_the_sorted_values():
    reader = LabelReader(unlabelled={"-1"})
    assert [reader.read(value, "a.csv", 2) for value in ("10", 9, "10.0", None, "", "-1", -100)] == [
        0,
        1,
        0,
        *4 * [-100],
    ]
    names, ids = reader.finish()
    assert names == ["9", "10"] and ids.tolist() == [1, 0]


def test_label_names_are_texts_and_differ():
    assert require_label_names(None) is None
    assert require_label_names([0, "b"]) == ["0", "b"]
    for names in ([], ["a"], ["1", 1]):
        with pytest.raises(KDError, match="at least two names, each once"):
            require_label_names(names)


def test_the_message_names_file_and_line_and_shortens_long_values():
    with pytest.raises(KDError, match=r"a.csv, line 7: label 'x{57}\.\.\.' is neither"):
        LabelReader(NAMES).read("x" * 99, "a.csv", 7)
