"""From files to splits: what is read, what is left out and counted, what is refused."""

import csv
import gzip
import json
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from pyarrow import parquet

from kd.data import sources
from kd.data.files import read_rows
from kd.data.sources import from_files, from_files_or_hub, from_hub
from kd.data.splits import FATES, normalise, text_keys
from kd.errors import KDError

CONF = Path(__file__).parents[2] / "conf"
DATA_SETS = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
NAMES = ["negative", "positive"]


def reviews(rows: int, first: int = 0) -> list[dict]:
    return [{"text": f"review number {i} of {rows}", "label": i % 2} for i in range(first, first + rows)]


def write(path: Path, rows: list[dict]) -> Path:
    """Write rows in the format of the suffix."""
    name = path.name
    if name.endswith(".parquet"):
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
        return path
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "wt", encoding="utf-8") as stream:
        if ".jsonl" in name:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        elif ".tsv" in name:
            stream.writelines("\t".join(map(str, row)) + "\n" for row in [rows[0], *(r.values() for r in rows)])
        else:
            table = csv.DictWriter(stream, rows[0])
            table.writeheader()
            table.writerows(rows)
    return path


def raw(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def contents(splits) -> dict[str, set]:
    return {
        name: set(zip(split["text"], split["label"], strict=True))
        for name, split in (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    }


def assert_adds_up(splits) -> None:
    """Every row that was read is used, or counted with its fate."""
    counts = splits.counts
    assert counts["read"] == counts["used"] + sum(counts[fate] for fate in FATES)
    assert counts["used"] == len(splits.train) + len(splits.validation) + len(splits.test)
    for name, split in counts["splits"].items():
        assert split["rows"] == sum(split["labels"].values()) + split["unlabelled"] == len(getattr(splits, name))


@pytest.fixture
def three(tmp_path):
    """Files of train, validation and test that differ in every row; the test may append to them."""
    places = {}
    for number, role in enumerate(("train", "validation", "test")):
        places[role] = str(write(tmp_path / f"{role}.csv", reviews(10, first=100 * number)))
    return places


# Reading


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz", "a.tsv.gz", "a.jsonl.gz"])
def test_formats_hold_the_same(tmp_path, name):
    rows = reviews(200)
    splits = from_files(str(write(tmp_path / name, rows)), label_names=NAMES)
    assert_adds_up(splits)
    assert set().union(*contents(splits).values()) == {(row["text"], row["label"]) for row in rows}
    shares = [len(split) / 200 for split in (splits.train, splits.validation, splits.test)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.07)
    assert splits.train.column_names == ["text", "label", "line"]
    assert [str(kind.dtype) for kind in splits.train.features.values()] == ["string", "int64", "int64"]
    start = 1 if name.split(".")[1] in ("jsonl", "parquet") else 2
    for row in splits.train:
        assert rows[row["line"] - start]["text"] == row["text"]


def test_rows_keep_all_columns_and_stream(tmp_path):
    path = write(tmp_path / "a.csv", [{"id": i, "text": "x" * 1000, "note": "é"} for i in range(20_000)])
    rows = read_rows(path)
    assert rows.columns == ["id", "text", "note"]
    assert next(iter(rows)) == (2, {"id": "0", "text": "x" * 1000, "note": "é"})
    tracemalloc.start()
    assert sum(1 for _ in rows) == 19_999
    assert tracemalloc.get_traced_memory()[1] < 1_000_000  # of 20 MB
    tracemalloc.stop()


def test_lines_are_right_with_mixed_line_ends_quoted_newlines_and_a_byte_order_mark(tmp_path):
    data = b'\xef\xbb\xbftext,label\r\n"one\r\nmore",0\nplain,1\r"a ""quoted"" one",0\r\n\nlast\xc2\x85one,1'
    rows = read_rows(raw(tmp_path / "a.csv", data))
    assert [(line, row["text"]) for line, row in rows] == [
        (2, "one\r\nmore"),
        (4, "plain"),
        (5, 'a "quoted" one'),
        (7, "last\x85one"),
    ]
    assert rows.columns == ["text", "label"]
    assert rows.blank.lines == [6]


def test_quotes_of_a_tsv_are_plain(tmp_path):
    rows = read_rows(raw(tmp_path / "a.tsv", 'sentence\tlabel\n"so he said\t1\n\'s fine "\t0\n'))
    assert [row["sentence"] for _, row in rows] == ['"so he said', "'s fine \""]


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


def test_a_text_of_a_million_characters(tmp_path):
    rows = [*reviews(100), {"text": "ab " * 400_000, "label": 1}]
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        splits = from_files(str(write(tmp_path / name, rows)))
        assert max(len(text) for texts in contents(splits).values() for text, _ in texts) == 1_200_000


def test_empty_and_nul_rows_are_counted_by_line(tmp_path):
    data = "text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(100)) + ' \t,1\n\nnu\0l,0\n"",1\nok,1\n'
    splits = from_files(str(raw(tmp_path / "a.csv", data)))
    assert sorted(splits.counts["lines"]["empty"]) == ["a.csv:102", "a.csv:103", "a.csv:105"]
    assert splits.counts["lines"]["nul"] == ["a.csv:104"]
    assert_adds_up(splits)


def test_another_encoding(tmp_path):
    data = "text,label\n" + "".join(f"très bien {i},{i % 2}\n" for i in range(100))
    splits = from_files(str(raw(tmp_path / "a.csv", data.encode("latin-1"))), encoding="latin-1")
    assert splits.train[0]["text"].startswith("très")
    splits = from_files(str(raw(tmp_path / "b.csv", data.encode("utf-16"))), encoding="utf-16")
    assert splits.train[0]["text"].startswith("très")


def test_half_a_surrogate_pair_is_malformed(tmp_path):
    path = write(tmp_path / "a.jsonl", [*reviews(100), {"text": "\ud800", "label": 1}, {"text": 5, "label": 1}])
    splits = from_files(str(path))
    assert splits.counts["lines"]["malformed"] == ["a.jsonl:101", "a.jsonl:102"]


# Splits


def test_what_counts_as_the_same_text():
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


def test_no_text_stands_on_two_sides(tmp_path):
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


def test_where_keeps_the_rows_asked_for(tmp_path):
    rows = [{**row, "source": "abc"[i % 3], "stars": i % 5} for i, row in enumerate(reviews(300))]
    path = str(write(tmp_path / "a.parquet", rows))
    assert from_files(path, where={"source": "a"}).counts["used"] == 100
    splits = from_files(path, where={"source": ["a", "b"], "stars": 1})
    assert (splits.counts["used"], splits.counts["filtered"]) == (40, 260)
    assert_adds_up(splits)


def test_a_glue_folder(tmp_path):
    write(tmp_path / "train.tsv", reviews(100))
    write(tmp_path / "dev.tsv", reviews(10, first=500))
    raw(tmp_path / "test.tsv", "index\ttext\n0\thidden\n")
    splits = from_files(str(tmp_path))
    assert len(splits.test) == 10 and splits.counts["splits"]["test"]["rows"] == 10
    assert len(splits.train) + len(splits.validation) == 100
    assert splits.counts["read"] == 110
    # Hidden labels, then real ones: only then is dev the validation split.
    raw(tmp_path / "test.tsv", "text\tlabel\nhidden\t-1\n")
    assert from_files(str(tmp_path)).counts["read"] == 110
    write(tmp_path / "test.tsv", reviews(20, first=700))
    splits = from_files(str(tmp_path))
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [100, 10, 20]


def test_the_checksum_follows_the_content(tmp_path):
    rows = reviews(100)
    first = from_files(str(write(tmp_path / "a.csv", rows))).counts["splits"]["train"]["sha256"]
    assert from_files(str(write(tmp_path / "b.jsonl", rows))).counts["splits"]["train"]["sha256"] == first
    rows = [{**row, "label": 1 - row["label"]} for row in rows]
    assert from_files(str(write(tmp_path / "c.csv", rows))).counts["splits"]["train"]["sha256"] != first


# Labels


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


# Bad input: one clear sentence each


@pytest.mark.parametrize(
    ("name", "data", "arguments", "message"),
    [
        ("a.csv", "review,label\nx,1\n", {}, r"no column 'text'; it has 'review', 'label'; set data.text"),
        ("a.csv", "text,stars\nx,1\n", {}, r"no column 'label'; it has 'text', 'stars'; set data.label"),
        ("a.csv", "text,label\nx,1\n", {"where": {"lang": "en"}}, r"no column 'lang'; .*data.where"),
        ("a.csv", "text,text\nx,1\n", {}, r"more than one column 'text'"),
        ("a.csv", "", {}, r"a.csv is empty; expected a first line with the names"),
        ("a.jsonl", "\n", {}, r"a.jsonl is empty"),
        ("a.txt", "x", {}, r"cannot tell the format .*expected .csv, .tsv, .jsonl, .parquet"),
        ("a.parquet", "no", {}, r"is not a Parquet file, or is damaged .*; convert or download it again"),
        ("a.csv.gz", "no", {}, r"cannot read .*a.csv.gz"),
        (
            "a.csv",
            b"text,label\nfine,1\r\ncaf\xe9,0\n",
            {},
            r"a.csv, line 3: byte 0xE9 is not utf-8 .*data.encoding",
        ),
        ("a.csv", b"text,label\nfine,1\nx\xe2\x82", {}, r"its last character: it is not utf-8"),
        ("a.csv", "text,label\nx,1\n", {"encoding": "klingon"}, r"unknown encoding 'klingon'"),
        ("a.csv", b"text,label\nx,1\n", {"encoding": "utf-16"}, r"not utf-16 text"),
        (
            "a.csv",
            'text,label\n"never closed,1\nx,0\n',
            {},
            r"line 2: a quote that opens there is never closed",
        ),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": \n', {}, r"line 2 is not JSON"),
        ("a.jsonl", '["x", 1]\n', {}, r"line 1 holds a JSON list; expected one object in each line"),
        (
            "a.csv",
            "text,label\nx,2\n",
            {"label_names": NAMES},
            r"line 2: label '2' is neither .*'negative', 'positive'",
        ),
        ("a.csv", "text,label\nx,good\n", {"label_names": NAMES}, r"label 'good' .*an id from 0 to 1"),
        ("a.csv", "text,label\nx,1\n", {"label_names": ["a"]}, r"expected at least two names"),
        ("a.csv", "text,label\nx,1\n", {"label_names": ["a", "a"]}, r"each once"),
        ("a.csv", "text,label\nx,1\ny,1\n", {}, r"at least two different labels, found '1'"),
        ("a.csv", "text,label\n", {"label_names": NAMES}, r"the train split is empty: .*0 rows were read"),
        ("a.csv", "text,label\n ,1\n", {"label_names": NAMES}, r"split is empty: .*left out: 1 empty"),
        ("a.csv", "text,label\nx,1\n", {"test_share": 0.5, "validation_share": 0.5}, r"sum is below 1"),
        ("a.csv", "text,label\nx,1\n", {"limit": 0}, r"limit must be a whole number of at least 1 or null, found 0"),
    ],
)
def test_bad_input_gets_one_clear_sentence(tmp_path, name, data, arguments, message):
    with pytest.raises(KDError, match=message) as caught:
        from_files(str(raw(tmp_path / name, data)), **arguments)
    assert "\n" not in str(caught.value)


def test_the_line_of_a_bad_byte_is_right_far_into_the_file(tmp_path):
    # CR LF on every line, so that one falls on the border of two chunks of the search.
    data = b"text,label\r\n" + b"abc,1\r\n" * 300_000 + b"\xff,1\r\n"
    with pytest.raises(KDError, match=r"line 300002: byte 0xFF"):
        list(read_rows(raw(tmp_path / "a.csv", data)))


def test_one_class_only_in_train(tmp_path):
    rows = [{"text": f"row {i}", "label": 1} for i in range(100)]
    with pytest.raises(KDError, match=r"only one class in the train split: .*are 'positive'"):
        from_files(str(write(tmp_path / "a.csv", rows)), label_names=NAMES)


def test_an_empty_test_file_is_not_replaced_by_a_cut(three):
    raw(Path(three["test"]), "text,label\n")
    with pytest.raises(KDError, match="the test split is empty"):
        from_files(**three)


def test_a_column_of_texts_is_no_label_column(tmp_path):
    with pytest.raises(KDError, match="more than 1,000 different values"):
        from_files(str(write(tmp_path / "a.csv", reviews(1100))), text="label", label="text")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(KDError, match=r"there is no file .*none\.csv; check the path"):
        from_files(str(tmp_path / "none.csv"))
    with pytest.raises(KDError, match=r"has no train file: .*found nothing"):
        from_files(str(tmp_path))
    with pytest.raises(KDError, match=r"expected either data.path .* found neither"):
        from_files()
    with pytest.raises(KDError, match="found both"):
        from_files("a.csv", train="b.csv")
    write(tmp_path / "train.csv", reviews(10))
    write(tmp_path / "train.tsv", reviews(10))
    with pytest.raises(KDError, match=r"expected one train file .* found train.csv, train.tsv"):
        from_files(str(tmp_path))


# The hub, which no test reaches


@pytest.fixture
def hub(monkeypatch):
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )

    def split(rows: int, first: int, label: int | None = None) -> datasets.Dataset:
        columns = {
            "sentence": [f"sentence {i}" for i in range(first, first + rows)],
            "label": [i % 2 if label is None else label for i in range(rows)],
        }
        return datasets.Dataset.from_dict(columns, features=features)

    asked = []
    loaded = datasets.DatasetDict(train=split(100, 0), validation=split(10, 95), test=split(10, 500, label=-1))
    monkeypatch.setattr(
        sources.datasets, "load_dataset", lambda *given, **options: asked.append((*given, options)) or loaded
    )
    return asked


@pytest.mark.parametrize("splits", [None, {"train": "train", "validation": None, "test": "validation"}])
def test_dev_is_the_test_split_where_the_hub_hides_the_labels(hub, splits):
    found = from_hub("org/data", text="sentence", splits=splits)
    assert found.label_names == ["bad", "good"]
    assert found.test["text"][:] == [f"sentence {i}" for i in range(95, 105)]
    assert len(found.train) + len(found.validation) == 95
    assert found.counts["lines"]["removed_from_train"] == [f"org/data/train:{i}" for i in range(96, 101)]
    assert_adds_up(found)


def test_hub_mistakes(hub, monkeypatch):
    with pytest.raises(KDError, match=r"no column 'text'; it has 'sentence', 'label'; set data.text"):
        from_hub("org/data")
    with pytest.raises(KDError, match=r"has the splits train, validation, test; .*found dev in data.hub_splits"):
        from_hub("org/data", text="sentence", splits={"train": "train", "test": "dev"})
    with pytest.raises(KDError, match=r"data\.where cannot be used with org/data from the hub"):
        from_files_or_hub(hub="org/data", text="sentence", where={"a": 1})

    def unreachable(*given, **options):
        raise ConnectionError("Couldn't reach it\nlong story")

    monkeypatch.setattr(sources.datasets, "load_dataset", unreachable)
    with pytest.raises(KDError, match=r"cannot load org/data .*Couldn't reach it\); .*set data.path=") as caught:
        from_hub("org/data")
    assert "\n" not in str(caught.value)


# conf/data


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_composes_and_reads_a_file_of_its_columns(name, tmp_path, hub):
    rows = [
        {"text": f"t {i}", "sentence": f"t {i}", "review": f"t {i}", "label": i % 2, "source": name} for i in range(200)
    ]
    path = write(tmp_path / "a.csv", rows)
    with initialize_config_dir(str(CONF / "data"), version_base="1.3"):
        config = compose(name, overrides=[f"path='{path}'", "label_names=[negative,positive]", "limit=150"])
    assert config.name == name
    assert config.max_length > 0 and config.batch_size > 0
    splits = instantiate(config.source)
    assert splits.counts["used"] == 150
    assert splits.label_names == NAMES


def test_sst2_without_a_path_comes_from_the_hub(hub):
    with initialize_config_dir(str(CONF / "data"), version_base="1.3"):
        config = compose("sst2")
    assert len(instantiate(config.source).test) == 10
    assert hub == [("stanfordnlp/sst2", None, {"revision": "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb"})]
