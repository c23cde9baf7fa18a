"""Reading rows from files: formats, line numbers, and files that cannot be read."""

import tracemalloc
import zipfile
from pathlib import Path

import pytest

from kd.data.dialect import Reading
from kd.data.files import Place, file_format, read_rows
from kd.errors import KDError
from tests.data.writing import packed_file, plain_content, raw, write, write_rows


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


def test_the_line_of_a_bad_byte_is_right_far_into_the_file(tmp_path):
    # CR LF on every line, so that one falls on the border of two chunks of the search.
    data = b"text,label\r\n" + b"abc,1\r\n" * 300_000 + b"\xff,1\r\n"
    with pytest.raises(KDError, match=r"line 300002: byte 0xFF"):
        list(read_rows(raw(tmp_path / "a.csv", data)))


def test_the_suffix_says_the_format():
    assert [file_format(Path(name)) for name in ("a.csv", "b.x.TSV.gz", "c.arrow")] == [".csv", ".tsv", ".arrow"]
    for name in ("a.parquet.gz", "a.csvx", "a.gz"):
        with pytest.raises(KDError, match="cannot tell the format"):
            file_format(Path(name))


@pytest.mark.parametrize("name", ["rows.parquet", "file.arrow", "stream.arrow"])
def test_only_the_columns_asked_for_are_read(tmp_path, name):
    texts = [f"text {number}" for number in range(2500)]
    path = write_rows(tmp_path / name, texts)
    assert read_rows(path).columns == ["number", "text"]
    assert list(read_rows(path).only("text")) == [(line, {"text": text}) for line, text in enumerate(texts, start=1)]


@pytest.mark.parametrize(
    ("name", "data", "arguments", "message"),
    [
        ("a.csv", "", {}, r"a.csv is empty; expected a first line with the names"),
        ("a.jsonl", "\n", {}, r"a.jsonl is empty"),
        ("a.dat", "x", {}, r"cannot tell the format .*expected .csv, .tsv, .jsonl, .*or set data.delimiter"),
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
    ],
)
def test_a_file_that_cannot_be_read_gets_one_clear_sentence(tmp_path, name, data, arguments, message):
    with pytest.raises(KDError, match=message) as caught:
        list(read_rows(raw(tmp_path / name, data), **arguments))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "packed"), [("a.csv", "gz"), ("a.tsv", "bz2"), ("a.jsonl", "xz"), ("a.json", "zst"), ("a.txt", "zip")]
)
def test_compressed_files_are_read(tmp_path, name, packed):
    path = packed_file(tmp_path / f"{name}.{packed}", plain_content(name))
    rows = read_rows(path, Reading(wanted=("text", "label")))
    assert [(row["text"], str(row["label"])) for _, row in rows] == [("a film", "good"), ("so dull", "bad")]


def test_the_format_of_a_zip_is_that_of_its_only_file(tmp_path):
    path = packed_file(tmp_path / "reviews.zip", plain_content("a.csv"), "in/reviews.csv")
    assert read_rows(path).columns == ["text", "label"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.csv", "x")
        archive.writestr("__MACOSX/in/._reviews.csv", "x")
    with pytest.raises(KDError, match=r"expected one file in .*zip, found in/reviews.csv, more.csv; unpack it"):
        read_rows(path)


def test_a_delimiter_makes_any_suffix_a_delimited_file(tmp_path):
    path = raw(tmp_path / "SMSSpam", "ham\ta b\nspam\tc d\n")
    rows = read_rows(path, Reading(delimiter="tab", header=["label", "text"]))
    assert [row for _, row in rows] == [{"label": "ham", "text": "a b"}, {"label": "spam", "text": "c d"}]


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        ("Text,label\nx,1\n", "set data.text=Text"),
        ("review,label\nx,1\n", "set data.text to one of them"),
        ("a long text of many words,1\nb,0\n", r"its first line looks like a row.* data.header=\[text,label\]"),
        ("texts\nx y\n", "set data.text=texts|each line is one field"),
        ("text,text\nx,1\n", "more than one column 'text'"),
    ],
)
def test_a_missing_column_is_explained(tmp_path, data, advice):
    rows = read_rows(raw(tmp_path / "a.csv", data), Reading(wanted=("text", "label")))
    with pytest.raises(KDError, match=advice) as caught:
        rows.require("text", "data.text")
    assert "\n" not in str(caught.value)


def test_columns_without_a_name_or_with_one_twice_do_no_harm_to_others(tmp_path):
    rows = read_rows(raw(tmp_path / "a.csv", "v1,v2,,,v2\nham,x,1,2,3\n"))
    assert rows.columns == ["v1", "v2", "", "column 4", "v2 (column 5)"]
    rows.require("v1", "data.label")
    assert list(rows) == [(2, dict(zip(rows.columns, ["ham", "x", "1", "2", "3"], strict=True)))]


def test_what_is_unusual_is_said(tmp_path):
    usual = read_rows(raw(tmp_path / "a.csv", "text,label\nx,1\n"))
    other = read_rows(raw(tmp_path / "b.csv", "text;label\nx;1\n"), Reading(wanted=("text",)))
    assert not usual.unusual and other.unusual
    assert other.taken == "csv, delimiter ';' (semicolon), quotes doubled"


def test_the_name_of_a_class_folder_has_its_split(tmp_path):
    assert Place(tmp_path / "train" / "pos", label="pos").name == "train/pos"
    assert Place(tmp_path / "train.csv").name == "train.csv"
