"""Which files of a folder, a list or a pattern belong to which split."""

import json
import shutil

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.data.dialect import Reading
from kd.data.folders import STEMS, Layout, files_of, is_data, layout_of
from kd.data.sources import from_files
from kd.errors import KDError
from tests.data.writing import assert_adds_up, raw, reviews, write

COLUMNS = ("text", "label")


def layout(place) -> Layout:
    return layout_of(str(place), COLUMNS, Reading(wanted=COLUMNS))


def names(found: Layout) -> dict[str, list[str]]:
    return {role: [place.name for place in places] for role, places in found.places.items()}


def cased(words):
    return st.sampled_from(words).flatmap(lambda word: st.sampled_from([word, word.upper(), word.capitalize()]))


@settings(deadline=None, max_examples=60)
@given(
    stems=st.fixed_dictionaries(
        {"train": cased(STEMS["train"])}, optional={r: cased(STEMS[r]) for r in STEMS if r != "train"}
    ),
    suffix=st.sampled_from([".csv", ".CSV", ".tsv", ".jsonl"]),
    pattern=st.sampled_from(["{}{}", "{}-00000-of-00001{}", "my_{}{}", "{}.v2{}", "{}_0{}", "reviews.{}{}"]),
)
def test_every_file_of_a_folder_is_used_or_named(tmp_path_factory, stems, suffix, pattern):
    folder = tmp_path_factory.mktemp("folder")
    for stem in stems.values():
        write(folder / pattern.format(stem, suffix.lower()), reviews(3)).rename(folder / pattern.format(stem, suffix))
    write(folder / "other.csv", reviews(3))
    raw(folder / "README.txt", "words")
    found = layout(folder)
    assert names(found) == {role: [pattern.format(stem, suffix)] for role, stem in stems.items()}
    assert [line.split(" ")[0] for line in found.unused] == ["other.csv"]


def test_shards_and_patterns_and_lists(tmp_path):
    parts = [str(write(tmp_path / f"train-0000{i}-of-00003.parquet", reviews(90, first=90 * i))) for i in range(3)]
    write(tmp_path / "test-00000-of-00001.parquet", reviews(30, first=900))
    whole = from_files(str(tmp_path))
    assert [whole.counts["splits"][name]["rows"] for name in ("train", "test")] == [270 - len(whole.validation), 30]
    for train in (parts, str(tmp_path / "train-*.parquet"), [*parts[:2], str(tmp_path / "train-00002*")]):
        splits = from_files(train=train, test=str(tmp_path / "test-*.parquet"))
        assert splits.counts["splits"] == whole.counts["splits"]
        assert_adds_up(splits)
    (tmp_path / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(KDError, match=r"expected 3 files beside train-00000-of-00003.parquet .*found 2; download"):
        from_files(str(tmp_path))
    for place, message in ((f"{tmp_path}/none-*.csv", "check the pattern"), ([], "at least one file in a list")):
        with pytest.raises(KDError, match=message):
            files_of(place)
    with pytest.raises(KDError, match="expected files in the list, found the folder"):
        layout_of([str(tmp_path), parts[0]], COLUMNS, Reading())


def test_names_with_brackets_are_files_first(tmp_path):
    path = write(tmp_path / "a[1].csv", reviews(3))
    assert files_of(str(path)) == [path]


def test_two_files_for_a_split_are_refused_but_an_older_format_goes_first(tmp_path):
    write(tmp_path / "train.csv", reviews(9))
    raw(tmp_path / "train.txt", "how the rows were made")
    found = layout(tmp_path)
    assert names(found) == {"train": ["train.csv"]} and found.unused[0].startswith("train.txt ")
    for name in ("dev.csv", "VAL.csv"):
        write(tmp_path / name, reviews(9))
    with pytest.raises(KDError, match=r"expected one validation file .* found VAL.csv, dev.csv"):
        layout(tmp_path)


def test_a_part_of_a_name_counts_only_with_the_columns(tmp_path):
    write(tmp_path / "train.csv", reviews(9))
    raw(tmp_path / "sample_test.csv", "id,prediction\n1,2\n")
    found = layout(tmp_path)
    assert names(found) == {"train": ["train.csv"]} and found.unused[0].startswith("sample_test.csv ")


def acl_imdb(folder):
    for split, rows in (("train", 40), ("test", 10)):
        for number in range(rows):
            place = folder / split / ("pos", "neg")[number % 2] / f"{number}_7.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            raw(place, f"{split} review number {number}<br />fine")
    (folder / "train" / "unsup").mkdir()
    raw(folder / "train" / "unsup" / "0_0.txt", "no label here")
    raw(folder / "train" / "urls_pos.txt", "http://x")
    raw(folder / "imdb.vocab", "the")
    raw(folder / "README", "words")
    return folder


def test_a_folder_for_each_class(tmp_path):
    splits = from_files(str(acl_imdb(tmp_path / "aclImdb")))
    assert splits.label_names == ["neg", "pos"]
    assert splits.counts["splits"]["test"]["labels"] == {"neg": 5, "pos": 5}
    assert splits.counts["unlabelled"] == 1 and splits.counts["read"] == 51
    found = layout(tmp_path / "aclImdb")
    assert found.unused == ["train/urls_pos.txt (beside the folders of the classes)"]
    alone = from_files(str(tmp_path / "aclImdb" / "train"))
    assert alone.label_names == ["neg", "pos"] and alone.counts["read"] == 41


def test_tweet_eval(tmp_path):
    raw(tmp_path / "mapping.txt", "0\tanger\n1\tjoy\n")
    for split, rows in (("train", 30), ("val", 6), ("test", 8)):
        raw(tmp_path / f"{split}_text.txt", "".join(f"{split} tweet {i}\n" for i in range(rows)))
        raw(tmp_path / f"{split}_labels.txt", "".join(f"{i % 2}\n" for i in range(rows)))
    raw(tmp_path / "other.txt", "x")
    splits = from_files(str(tmp_path))
    assert splits.label_names == ["anger", "joy"]
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [30, 6, 8]
    assert layout(tmp_path).unused == ["other.txt (it belongs to no pair of texts and labels)"]
    raw(tmp_path / "mapping.txt", "anger\njoy\n")
    with pytest.raises(KDError, match="expected lines such as '0<tab>name'"):
        layout(tmp_path)


def hub_like(rows: int, first: int, names=("1", "2", "3")) -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))})
    columns = {"text": [f"text {i}" for i in range(first, first + rows)], "label": [i % 3 for i in range(rows)]}
    return datasets.Dataset.from_dict(columns, features=features)


def test_save_to_disk(tmp_path):
    saved = datasets.DatasetDict(train=hub_like(60, 0), test=hub_like(9, 100), extra=hub_like(3, 200))
    saved.save_to_disk(tmp_path / "saved", num_shards={"train": 2, "test": 1, "extra": 1})
    splits = from_files(str(tmp_path / "saved"))
    assert splits.label_names == ["1", "2", "3"]  # names that are numbers: the values are ids all the same
    assert splits.counts["splits"]["test"]["labels"] == {"1": 3, "2": 3, "3": 3}
    assert layout(tmp_path / "saved").unused == ["extra (its name says no split, or one more)"]
    saved["train"].save_to_disk(tmp_path / "one")
    assert from_files(str(tmp_path / "one")).counts["read"] == 60
    (tmp_path / "one" / "state.json").write_text(json.dumps({"_data_files": 3}))
    with pytest.raises(KDError, match="is not a whole folder of save_to_disk"):
        layout(tmp_path / "one")


def test_class_labels_of_parquet_files(tmp_path):
    for name, rows, first in (("train", 60, 0), ("test", 9, 100)):
        hub_like(rows, first).to_parquet(tmp_path / f"{name}.parquet")
    assert from_files(str(tmp_path)).counts["splits"]["test"]["labels"] == {"1": 3, "2": 3, "3": 3}
    hub_like(9, 100, names=("2", "1", "3")).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(KDError, match="name the classes differently: expected the same names in the same order"):
        from_files(str(tmp_path))


def test_a_folder_below_called_data_is_looked_into(tmp_path):
    write(tmp_path / "train.csv", reviews(30))
    (tmp_path / "data").mkdir()
    shutil.move(tmp_path / "train.csv", tmp_path / "data" / "train.csv")
    assert names(layout(tmp_path)) == {"train": ["train.csv"]}


@pytest.mark.parametrize("names_", [["reviews.csv"], ["part-00000.csv", "part-00001.csv", "part-00002.csv"]])
def test_the_only_files_of_a_folder_are_its_train_split(tmp_path, names_):
    for number, name in enumerate(names_):
        write(tmp_path / name, reviews(3, first=3 * number))
    assert names(layout(tmp_path)) == {"train": names_}
    write(tmp_path / "more.csv", reviews(3))
    with pytest.raises(KDError, match=r"has no train file: .* found more.csv, "):
        layout(tmp_path)


def test_a_folder_of_unlabelled_texts(tmp_path):
    path = write(tmp_path / "a.csv", reviews(60))
    for name in ("unsup", "parts", "empty"):
        (tmp_path / name).mkdir()
    for number in range(3):
        raw(tmp_path / "unsup" / f"{number}.txt", f"one text {number}\nof two lines")
        write(tmp_path / "parts" / f"part-{number}.jsonl", [{"text": f"part {number}"}])
    splits = from_files(str(path), unlabelled=[str(tmp_path / "unsup"), str(tmp_path / "parts")])
    assert splits.counts["unlabelled"] == 6 and "one text 0\nof two lines" in splits.train["text"][:]
    with pytest.raises(KDError, match=r"expected files with texts in the folder .*empty, found none"):
        from_files(str(path), unlabelled=str(tmp_path / "empty"))


def test_what_is_data(tmp_path):
    for name in ("a.csv", "a.csv.zst", "a.txt", ".a.csv", "README.txt", "a.png"):
        raw(tmp_path / name, "x")
    assert sorted(path.name for path in tmp_path.iterdir() if is_data(path)) == ["a.csv", "a.csv.zst", "a.txt"]
