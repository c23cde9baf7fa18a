"""Label names and ids, given or found in the data."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    reader = LabelReader(NAMES)
    reader.read("positive", "a.csv", 2)
    for line in (7, 8):
        reader.read("x" * 99, "a.csv", line)
    with pytest.raises(KDError, match=r"a.csv, line 7: label 'x{57}\.\.\.' is neither"):
        reader.finish()


# One rule for the whole column


def ids_of(values: list, names: list[str] | None = None, **options) -> tuple[list[str], list[int], LabelReader]:
    """The label names, and the id of each value."""
    reader = LabelReader(names, **options)
    codes = [reader.read(value, "a.csv", line) for line, value in enumerate(values, start=2)]
    found, ids = reader.finish()
    return found, [int(ids[code]) for code in codes], reader


@pytest.mark.parametrize(
    ("names", "values", "expected"),
    [
        (["1", "2"], [1, 2, 1], [0, 1, 0]),  # names
        (["1", "2"], [0, 1, 0], [0, 1, 0]),  # the same rows, as ids
        (["1", "2", "3", "4", "5"], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        (["1", "2", "3", "4", "5"], ["5.0", "1.00", 3.0], [4, 0, 2]),
        (["no", "yes"], ["True", "false"], [1, 0]),
        (["negative", "positive"], ["Negative", "POSITIVE "], [0, 1]),
    ],
)
def test_number_names_are_names_or_ids_for_the_whole_column(names, values, expected):
    assert ids_of(values, names)[1] == expected


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 2], [1, 2, 3], [-1, 1]])
def test_names_and_ids_are_never_mixed_where_names_are_numbers(values):
    with pytest.raises(KDError, match=r"label|labels"):
        ids_of(values, ["1", "2"])


@settings(deadline=None, max_examples=200)
@given(
    names=st.lists(st.integers(-3, 6).map(str) | st.sampled_from("abAB"), min_size=2, max_size=5, unique=True),
    values=st.lists(st.integers(-3, 6) | st.sampled_from("abAB"), min_size=1, max_size=12),
)
def test_every_column_is_read_by_one_rule_or_refused(names, values):
    """Where names are numbers, all values are read as names, or all as ids."""
    try:
        _, found, _reader = ids_of(values, names)
    except KDError as error:
        assert "\n" not in str(error)
        return
    by_name = [names.index(str(value)) if str(value) in names else None for value in values]
    by_id = [value if isinstance(value, int) and 0 <= value < len(names) else None for value in values]
    if any(name.lstrip("-").isdecimal() for name in names):
        assert found in (by_name, by_id)
    else:
        close = [
            [name.casefold() for name in names].index(str(value).casefold()) if str(value).isalpha() else None
            for value in values
        ]
        assert all(number in kinds for number, *kinds in zip(found, by_name, by_id, close, strict=True))
    again = ids_of(values[::-1], names)[1]
    assert again == found[::-1]  # the order of the rows has no effect


def test_what_could_be_read_in_two_ways_is_said():
    assert (
        "'0' (1 rows), '1' (1 rows) are read as ids, as not all of them are label names: 0 means '1'"
        in (ids_of([0, 1], ["1", "2"])[2].warnings[0])
    )
    assert "are read as names; they could be ids as well" in ids_of([1, 1], ["1", "2"])[2].warnings[0]
    for values, names in (([1, 2], ["1", "2"]), ([0, 1], ["0", "1"]), ([0, 1], NAMES)):
        assert ids_of(values, names)[2].warnings == []


def test_class_labels_of_a_file_are_ids_even_if_the_names_are_numbers():
    assert ids_of([1, 2, 1], ["1", "2", "3"], are_ids=True)[1] == [1, 2, 1]
    with pytest.raises(KDError, match="expected ids in the whole column"):
        ids_of(["one", 1], ["one", "two"], are_ids=True)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 3) | st.text("ab", min_size=1), max_size=3)
    | st.dictionaries(st.text("ab"), st.integers(0, 3), max_size=2)
    | st.binary(max_size=4)
    | st.tuples(st.integers(0, 3), st.integers(0, 3))
)
def test_lists_objects_and_bytes_are_no_labels_as_such_or_written(value):
    for written in (value, repr(value), json.dumps(value) if isinstance(value, list | dict) else repr(value)):
        with pytest.raises(KDError, match=r"a.csv, line 2: label .* is a (list|dict|bytes|tuple)"):
            ids_of([written, "good"])


@pytest.mark.parametrize("value", ["(good)", "b", "[NEG]", "bad'", "it's", "{x}", "C++", "[", "b'"])
def test_names_with_brackets_and_quotes_are_labels(value):
    assert value in ids_of([value, "other", value, "other"])[0]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-10, 10).map(lambda x: x + 0.001), min_size=30, max_size=60, unique=True), st.booleans())
def test_numbers_with_a_fraction_are_regression(values, comma):
    written = [f"{value:.6f}".replace(".", "," if comma else ".") for value in values]
    with pytest.raises(KDError, match=r"numbers with a fraction.*different values in \d+ rows.*regression"):
        ids_of(written)


def test_a_few_half_stars_are_classes_with_a_warning():
    names, _, reader = ids_of([0.5, 1, 1.5, 2] * 20)
    assert names == ["0.5", "1", "1.5", "2"]
    assert "such as '0.5' (4 different values in 80 rows): each number becomes a class" in reader.warnings[0]


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        (["Positive", "positive", "bad"] * 3, "'Positive' (3 rows), 'positive' (3 rows) are the same but for letters"),
        (["good", "good", "bad", "bad", "odd"], "'odd' (1 rows) are classes with a single row"),
        (["good", "good", "0", "0"], "'0' (2 rows) are numbers, and the others are names"),
        (["good", "good", "nan", "nan"], "'nan' (2 rows) are classes; if they mean 'no label'"),
        (["a", "b", "a;b", "b,c"] * 2, "'a;b' (2 rows), 'b,c' (2 rows) are several labels in one cell"),
    ],
)
def test_what_may_be_a_mistake_is_said_with_counts(values, warning):
    assert any(warning in found for found in ids_of(values)[2].warnings)


def test_usual_columns_give_no_warning():
    for values in (["good", "bad"] * 9, [0, 1] * 9, [1, 2, 3, 4, 5] * 9, [True, False] * 9, ["ENTY:cremat", "NUM"] * 9):
        assert ids_of(values)[2].warnings == []


def test_columns_of_texts_or_keys_are_no_labels():
    with pytest.raises(KDError, match=r"nearly all different \(30 different values in 30 rows"):
        ids_of([f"row {number}" for number in range(30)])
    with pytest.raises(KDError, match="nearly all different"):
        ids_of([*range(40), *range(10)])


def test_the_text_column_cannot_be_the_label(tmp_path):
    with pytest.raises(KDError, match=r"data.text and data.label are both 'text'"):
        from_files(str(write(tmp_path / "a.csv", reviews(30))), label="text")


def test_a_class_without_training_rows_is_named(tmp_path):
    write(tmp_path / "train.csv", reviews(20))
    write(tmp_path / "test.csv", [*reviews(9, first=50), *({"text": f"odd {i}", "label": -1} for i in range(3))])
    splits = from_files(str(tmp_path))
    assert any("labels of test that have no row in train: '-1' (3 rows)" in warning for warning in splits.warnings)


# What is no class: see also test_label_forms.py


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from("abcd"), min_size=2, max_size=4, unique=True),
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True),
    st.sampled_from(["test", "validation"]),
)
def test_held_out_labels_that_train_lacks_are_named(train, held_out, split):
    reader = ids_of([*train, *train, *held_out])[2]
    counts = {"train": dict.fromkeys(train, 2), split: dict.fromkeys(held_out, 3)}
    new = [name for name in held_out if name not in train]
    try:
        reader.check_trained(counts, {split})
    except KDError as error:
        assert new == held_out and f"no label of {split} (" in str(error) and "expected the same labels" in str(error)
        assert all(f"{name!r} (3 rows)" in str(error) for name in held_out)
        return
    said = [warning for warning in reader.warnings if "no row in train" in warning]
    assert new != held_out and len(said) == bool(new) and all(f"{name!r} (3 rows)" in said[0] for name in new)


def test_other_labels_in_the_test_file_are_refused(tmp_path):
    write(tmp_path / "train.csv", [{"text": f"row {i}", "label": ["pos", "neg"][i % 2]} for i in range(40)])
    write(tmp_path / "test.csv", reviews(10, first=50))
    with pytest.raises(KDError, match=r"no label of test \('0' \(5 rows\), '1' \(5 rows\)\) is one of train \('neg'"):
        from_files(str(tmp_path))


def test_amounts_are_no_classes():
    with pytest.raises(
        KDError, match=r"shares or amounts, such as '0%' \(50 different values in 50 rows\).*regression"
    ):
        ids_of([f"{number}%" for number in range(50)])
    with pytest.raises(KDError, match="numbers with a fraction"):  # a few cells without a number change nothing
        ids_of([*(number + 0.5 for number in range(50)), "n/a", "inf"])
    assert "such as '10%' (3 different values" in ids_of(["10%", "20%", "30%"] * 9)[2].warnings[0]
    warning = "are whole numbers with gaps, and each becomes a class: if they are amounts, this is regression"
    assert any(warning in found for found in ids_of([*range(0, 90, 3)] * 3)[2].warnings)
    assert ids_of([*range(77)] * 3)[2].warnings == []


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        (["01", "1", "2"] * 3, "'01' (3 rows), '1' (3 rows) are the same number"),
        (["pos", "pos\u200b", "neg"] * 3, "are the same but for letters and spaces"),
        (
            ["joy", "anger", "joy anger", "joy/anger"] * 3,
            "'joy anger' (3 rows), 'joy/anger' (3 rows) are several labels",
        ),
        (["good", "very good", "#REF!"] * 3, "'#REF!' (3 rows) are classes; if they mean 'no label'"),
    ],
)
def test_what_looks_like_one_class_in_two_forms_is_said(values, warning):
    assert [found for found in ids_of(values)[2].warnings if warning in found]
