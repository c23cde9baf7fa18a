"""The texts of an audit: the templates, the Equity Evaluation Corpus, files with a column of groups."""

import csv
import json

import pytest

from kd.audit.texts import EEC, corpus, grouped, templates
from kd.errors import KDError

COLUMNS = {"text": "text", "group": "group", "pair": "", "label": "label"}
NAMES = ["negative", "positive"]


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def eec_rows():
    """Two frames with one word of emotion each, a pair of nouns, and two names in each group."""
    rows = []
    for frame, person in (("{} feels sad.", "she/he"), ("The talk with {} was sad.", "her/him")):
        persons = [(one, gender, "") for one, gender in zip(person.split("/"), ("female", "male"), strict=True)]
        persons += [("Ebony", "female", "African-American"), ("Nia", "female", "African-American")]
        persons += [("Jamel", "male", "African-American"), ("Leroy", "male", "African-American")]
        persons += [("Amanda", "female", "European"), ("Betsy", "female", "European")]
        persons += [("Adam", "male", "European"), ("Alan", "male", "European")]
        rows += [(len(rows), frame.format(one), frame, one, g, race, "sadness", "sad") for one, g, race in persons]
    return rows


def test_the_templates_are_complete():
    texts = templates()
    assert texts.groups("gender") == ("male", ["female"])
    reference, others = texts.groups("origin")
    assert reference == "English" and len(others) == 5
    rows = texts.rows
    assert not rows["text"].duplicated().any() and rows["text"].str.match(r"[A-Z].*\.$").all()
    assert "The talk with her was great." in set(rows["text"]) and "She feels annoyed." in set(rows["text"])
    for attribute in texts.attributes:  # every pair of persons is in every unit, once in each group
        named = rows[rows[f"group {attribute}"] != ""]
        counts = named.groupby(["unit", f"key {attribute}", f"group {attribute}"]).size()
        assert (counts == 1).all() and len(counts) == len(named)


def test_the_equity_evaluation_corpus(tmp_path):
    texts = corpus(write(tmp_path / "eec.csv", ("ID", *EEC), eec_rows()))
    assert texts.attributes == ("Gender", "Race") and len(texts.rows) == 20
    assert texts.groups("Race") == ("African-American", ["European"])
    pairs = texts.rows.groupby("key Gender")["Person"].agg(sorted).to_dict()
    assert sorted(pairs.values())[-1] == ["he", "her", "him", "she"], "an object is paired as its subject"
    assert ["Adam", "Adam", "Amanda", "Amanda"] in pairs.values()
    with pytest.raises(KDError, match=r"expected the columns of the Equity .* found no Race; for another file name"):
        corpus(write(tmp_path / "other.csv", [name for name in EEC if name != "Race"], [["x"] * 6]))


def test_a_file_with_groups(tmp_path):
    rows = [
        ("a film", "f", "positive", 1),
        ("a plot", "m", "negative", 1),
        ("", "m", "positive", 2),
        ("b", "m", "", ""),
    ]
    path = write(tmp_path / "rows.csv", ("text", "group", "label", "id"), rows)
    texts = grouped(path, COLUMNS, NAMES)
    assert texts.rows["label"].tolist() == [1, 0, -100] and not texts.paired
    assert texts.groups("group") == ("m", ["f"])
    paired = grouped(path, {**COLUMNS, "pair": "id"}, NAMES)
    assert paired.paired and len(paired.rows) == 2, "a row without a pair is left out"


@pytest.mark.parametrize(
    ("header", "rows", "columns", "sentence"),
    [
        (("text", "group", "label"), [("a", "f", "great")], {}, "great"),
        (("text", "group"), [("a", "f")], {}, "expected labels or pairs in .*: equalised odds need labels"),
        (("text", "sex"), [("a", "f")], {}, "has no column 'group'"),
        (("text", "group", "label"), [("", "f", "positive")], {}, "expected rows with a text"),
        (("text", "group"), [("a", "f")], {"pair": "id"}, "has no column 'id'"),
    ],
)
def test_other_files_are_refused(tmp_path, header, rows, columns, sentence):
    with pytest.raises(KDError, match=sentence):
        grouped(write(tmp_path / "rows.csv", header, rows), COLUMNS | columns, NAMES)


@pytest.mark.parametrize("groups", [["f"], list("abcdefghijklmnopqrstuvwxyz")])
def test_a_column_of_groups_has_a_few(tmp_path, groups):
    path = write(tmp_path / "rows.csv", ("text", "group", "label"), [(f"text {g}", g, "positive") for g in groups])
    with pytest.raises(
        KDError, match=f"expected 2 to 20 groups in the column 'group' of rows.csv, found {len(groups)}"
    ):
        grouped(path, COLUMNS, NAMES).groups("group")


def test_a_group_may_be_called_0_and_a_row_may_lack_it(tmp_path):
    path = tmp_path / "groups.jsonl"
    rows = [{"text": f"row {row}", "group": row % 2, "label": "negative"} for row in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "no group, no label"}]))
    columns = {"text": "text", "group": "group", "pair": "", "label": "label"}
    found = grouped(path, columns, ["negative", "positive"])
    assert sorted(set(found.rows["group group"])) == ["", "0", "1"]
