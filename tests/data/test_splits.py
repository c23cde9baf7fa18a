"""Which split a row is in, and which rows are left out and counted."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kd.data.sources import from_files
from kd.data.splits import normalise, text_keys
from kd.errors import KDError
from tests.data.writing import NAMES, assert_adds_up, contents, raw, reviews, write


@pytest.fixture
def three(tmp_path):
    """Files of train, validation and test that differ in every row; the test may append to them."""
    places = {}
    for number, role in enumerate(("train", "validation", "test")):
        places[role] = str(write(tmp_path / f"{role}.csv", reviews(10, first=100 * number)))
    return places


def test_which_texts_are_the_same():
    assert normalise("\uff21  B\u00a0c\n") == "a b c"
    assert text_keys("Bad!")[0] != text_keys("bad")[0]
    assert text_keys("It 's BAD .")[1] == text_keys("it's bad")[1]
    assert text_keys("!!!")[1] != text_keys("???")[1]
    assert text_keys("a film")[0].hex().startswith("eb4d67fa")  # splits must stay from version to version


def test_splits_depend_on_the_texts_alone(tmp_path):
    rows = reviews(300)
    first = from_files(str(write(tmp_path / "a.csv", rows)))
    random.Random(0).shuffle(rows)
    assert contents(from_files(str(write(tmp_path / "b.jsonl", rows)))) == contents(first)
    # A row more moves no other row.
    more = contents(from_files(str(write(tmp_path / "c.csv", [*rows, {"text": "new", "label": 1}]))))
    assert all(before <= more[name] for name, before in contents(first).items())


def test_splits_do_not_depend_on_pythons_hash_seed(tmp_path):
    path = write(tmp_path / "a.csv", reviews(60))
    program = f"from kd.data.sources import from_files; print(from_files({str(path)!r}).test['text'][:])"
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'kd'\n" + program]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True
    )
    assert done.stdout.strip() == str(from_files(str(path)).test["text"][:])


def test_no_text_is_in_two_splits(tmp_path):
    rows = reviews(200)
    variants = [{"text": f" {row['text'].upper()} !", "label": row["label"]} for row in rows]
    splits = from_files(str(write(tmp_path / "a.csv", rows + variants)))
    sides = [{text_keys(text)[1] for text, _ in texts} for texts in contents(splits).values()]
    assert len(set.union(*sides)) == sum(map(len, sides)) == 200
    assert splits.counts["used"] == 400  # punctuation differs: no duplicates, but one side


def test_duplicates_and_conflicts_are_counted_and_the_first_kept(tmp_path):
    rows = [
        *reviews(100),
        {"text": "Review  number 0 OF 100", "label": 0},
        {"text": "review number 1 of 100", "label": 0},
    ]
    splits = from_files(str(write(tmp_path / "a.csv", rows)))
    assert (splits.counts["duplicates"], splits.counts["conflicting_duplicates"]) == (1, 1)
    assert splits.counts["lines"]["conflicting_duplicates"] == ["a.csv:103"]
    assert ("review number 1 of 100", 1) in set().union(*contents(splits).values())
    assert_adds_up(splits)
    kept = from_files(str(tmp_path / "a.csv"), deduplicate=False)
    assert (kept.counts["used"], kept.counts["duplicates"]) == (102, 0)


def test_given_files_are_held_out_and_train_gives_way(three):
    train = Path(three["train"])
    train.write_text(train.read_text() + "REVIEW number 100 of 10!,0\nreview number 205 of 10,1\n")
    validation = Path(three["validation"])
    validation.write_text(validation.read_text() + "review number 200 of 10,0\n")
    splits = from_files(**three)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [10, 10, 10]
    assert splits.counts["lines"]["removed_from_train"] == ["train.csv:12", "train.csv:13"]
    assert splits.counts["lines"]["removed_from_validation"] == ["validation.csv:12"]
    assert_adds_up(splits)


def test_rows_without_a_label_join_train_only(tmp_path):
    path = write(tmp_path / "a.csv", [*reviews(100), *({"text": f"unknown {i}", "label": ""} for i in range(50))])
    held_out = from_files(str(path)).test["text"][:]
    extra = [{"text": text} for text in [held_out[0].upper(), "unknown 3", "review number 0 of 100", "quite new"]]
    splits = from_files(str(path), unlabelled=[str(write(tmp_path / "extra.csv", extra))])
    assert splits.counts["unlabelled"] == splits.train["label"][:].count(-100) == 51
    assert -100 not in splits.validation["label"][:] + splits.test["label"][:]
    assert "quite new" in splits.train["text"][:]
    assert splits.counts["lines"]["removed_from_train"] == ["extra.csv:2"]
    assert splits.counts["lines"]["duplicates"] == ["extra.csv:3", "extra.csv:4"]
    assert "unlabelled 51" in splits.report()
    assert_adds_up(splits)


def test_rows_without_a_label_leave_given_held_out_files(three, tmp_path):
    for role in ("train", "test"):
        path = Path(three[role])
        path.write_text(path.read_text() + f"no label in {role},\n")
    held_out = [{"text": "Review number 203 of 10!"}, {"text": "review number 104 of 10"}]
    splits = from_files(**three, unlabelled=str(write(tmp_path / "extra.csv", held_out)))
    assert splits.counts["lines"]["unlabelled_held_out"] == ["test.csv:12"]
    assert splits.counts["lines"]["removed_from_train"] == ["extra.csv:2", "extra.csv:3"]
    assert splits.train["text"][:][-1] == "no label in train"
    assert splits.counts["splits"]["train"]["unlabelled"] == 1
    assert_adds_up(splits)


def test_a_train_file_without_any_label_serves_transfer_alone(three, tmp_path):
    three["train"] = str(write(tmp_path / "texts.csv", [{"text": f"t {i}", "label": ""} for i in range(5)]))
    assert from_files(**three, label_names=NAMES).train["label"][:] == [-100] * 5


def test_limit_takes_rows_by_hash(tmp_path):
    rows = reviews(300)
    first = from_files(str(write(tmp_path / "a.csv", rows)), limit=60)
    assert first.counts["used"] == 60
    assert first.counts["limited"] == 240
    assert_adds_up(first)
    again = contents(from_files(str(write(tmp_path / "b.csv", rows[::-1])), limit=60))
    assert again == contents(first)
    whole = contents(from_files(str(tmp_path / "a.csv")))
    assert all(texts <= whole[name] for name, texts in again.items())
    more = write(tmp_path / "more.csv", [{"text": f"more {i}"} for i in range(90)])
    few = from_files(str(write(tmp_path / "a.csv", rows)), limit=60, unlabelled=str(more))
    assert few.counts["used"] == 150 and few.counts["unlabelled"] == 90, "a few labelled rows, a large transfer set"


def test_empty_and_nul_rows_are_counted_by_line(tmp_path):
    data = "text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(100)) + ' \t,1\n\nnu\0l,0\n"",1\nok,1\n'
    splits = from_files(str(raw(tmp_path / "a.csv", data)))
    assert sorted(splits.counts["lines"]["empty"]) == ["a.csv:102", "a.csv:103", "a.csv:105"]
    assert splits.counts["lines"]["nul"] == ["a.csv:104"]
    assert_adds_up(splits)


def test_half_a_surrogate_pair_is_malformed(tmp_path):
    path = write(tmp_path / "a.jsonl", [*reviews(100), {"text": "\ud800", "label": 1}, {"text": 5, "label": 1}])
    splits = from_files(str(path))
    assert splits.counts["lines"]["malformed"] == ["a.jsonl:101", "a.jsonl:102"]


def test_rows_of_the_wrong_width_are_counted_by_line(tmp_path):
    data = (
        "text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(100)) + 'a, b,1\nshort\n"x"y,1\n"two\n"x,0\nok,1\n'
    )
    splits = from_files(str(raw(tmp_path / "a.csv", data)))
    assert splits.counts["malformed"] == 4
    assert splits.counts["lines"]["malformed"] == ["a.csv:102", "a.csv:103", "a.csv:104", "a.csv:105"]
    assert splits.counts["used"] == 101
    assert_adds_up(splits)
    assert "left out, malformed: 4 (a.csv:102, a.csv:103, a.csv:104, a.csv:105)" in splits.report()


def test_the_checksum_follows_the_content(tmp_path):
    rows = reviews(100)
    first = from_files(str(write(tmp_path / "a.csv", rows))).counts["splits"]["train"]["sha256"]
    assert from_files(str(write(tmp_path / "b.jsonl", rows))).counts["splits"]["train"]["sha256"] == first
    rows = [{**row, "label": 1 - row["label"]} for row in rows]
    assert from_files(str(write(tmp_path / "c.csv", rows))).counts["splits"]["train"]["sha256"] != first


def test_one_class_only_in_train(tmp_path):
    rows = [{"text": f"row {i}", "label": 1} for i in range(100)]
    with pytest.raises(KDError, match=r"only one class in the train split: .*are 'positive'"):
        from_files(str(write(tmp_path / "a.csv", rows)), label_names=NAMES)


def test_an_empty_test_file_is_not_replaced_by_train_rows(three):
    raw(Path(three["test"]), "text,label\n")
    with pytest.raises(KDError, match="the test split is empty"):
        from_files(**three)
