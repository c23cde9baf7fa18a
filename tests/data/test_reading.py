"""Reading the files of each split: hidden labels, what is logged, and rows that cannot be used at all."""

import pytest

from kd.data.reading import any_label, without_hidden_labels
from kd.data.sources import from_files
from kd.errors import KDError
from tests.data.writing import raw, reviews, write


def test_a_test_file_whose_first_labels_are_hidden_is_used(tmp_path):
    write(tmp_path / "train.csv", [{**row, "label": row["label"] - 1} for row in reviews(60)])
    write(tmp_path / "dev.csv", [{**row, "label": row["label"] - 1} for row in reviews(10, first=100)])
    for hidden in ("-1", ""):
        rows = [{"text": f"test {i}", "label": hidden if i < 150 else "0"} for i in range(160)]
        write(tmp_path / "test.csv", rows)
        splits = from_files(str(tmp_path))
        assert (len(splits.validation), len(splits.test)) == (10, 160 if hidden else 10)
        assert splits.counts["unlabelled_held_out"] == (0 if hidden else 150)


def test_a_test_file_without_labels_is_named(tmp_path, caplog):
    write(tmp_path / "train.csv", reviews(60))
    write(tmp_path / "val.csv", reviews(10, first=100))
    raw(tmp_path / "test.csv", "text\nhidden\n")
    splits = from_files(str(tmp_path))
    assert "not used: test.csv (it has no labels)" in caplog.text
    assert "val.csv is the test split, and the validation split is taken out of train" in splits.report()


def test_given_files_replace_those_of_a_folder_and_are_named(tmp_path, caplog):
    write(tmp_path / "train.csv", reviews(60))
    write(tmp_path / "test.csv", reviews(10, first=100))
    other = write(tmp_path / "new.csv", reviews(12, first=200))
    assert len(from_files(str(tmp_path), test=[str(other)]).test) == 12
    assert "test.csv (data.test replaces it)" in caplog.text and "new.csv (its name says no split" in caplog.text


def test_what_was_found_out_is_reported(tmp_path):
    rows = "".join(f"row {i};{i % 2}\n" for i in range(60))
    splits = from_files(str(raw(tmp_path / "a.csv", f"text;label\n{rows}")))
    assert "a.csv is read as csv, delimiter ';' (semicolon), quotes doubled" in splits.report()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            'text,label\n"a "b"",1\n',
            {},
            r"1 rows were read, and none can be used; left out: 1 malformed \(first a.csv:2, a mis",
        ),
        ("text,label\na,b,1\n", {}, r"\(first a.csv:2, 3 fields instead of 2\); check data.delimiter, data.quoting"),
        ("text,label\na,\nb,\n", {}, "2 rows were read, and none of them has a label; set data.label"),
        ("text,label\na,1\n", {"where": {"label": 2}}, "none can be used; left out: 1 filtered .*check data.where"),
        ("text,label\na\0,1\n", {}, "NUL characters: check data.encoding"),
    ],
)
def test_rows_of_which_none_can_be_used_name_the_reason(tmp_path, content, options, message):
    with pytest.raises(KDError, match=message) as caught:
        from_files(str(raw(tmp_path / "a.csv", content)), **options)
    assert "\n" not in str(caught.value)


def test_texts_of_another_type_say_which(tmp_path):
    path = raw(tmp_path / "a.jsonl", '{"text": {"body": "x"}, "label": 1}\n')
    with pytest.raises(KDError, match=r"\(first a.jsonl:1, its text is of the type dict\)"):
        from_files(str(path))


def test_many_malformed_rows_give_a_warning(tmp_path, caplog):
    path = write(tmp_path / "a.csv", reviews(60))
    path.write_text(path.read_text() + "a,b,c\n" * 9 + "text,label\n")
    splits = from_files(str(path))
    assert "9 of 70 rows are malformed (first a.csv:62, 3 fields instead of 2)" in caplog.text
    assert splits.counts["repeated_header"] == 1


def test_a_json_list_cannot_be_streamed(tmp_path):
    path = write(tmp_path / "a.csv", reviews(60))
    extra = raw(tmp_path / "more.json", '[{"text": "x"}]')
    assert from_files(str(path), unlabelled=str(extra)).counts["unlabelled"] == 1
    with pytest.raises(KDError, match=r"is one JSON list, which data.stream cannot read in parts"):
        from_files(str(path), unlabelled=str(extra), stream=True)


def test_hidden_labels():
    assert any_label([None, "", " -1 ", 0]) and not any_label([None, "", -1, -1.0, float("nan")])
    assert without_hidden_labels({"train": 1, "validation": 2, "test": 3}, False) == {"train": 1, "test": 2}
    assert without_hidden_labels({"train": 1, "test": 3}, False) == {"train": 1}
