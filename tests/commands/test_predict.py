"""What `kd predict` reads and writes, without a model."""

import csv
import io
import json
import os
from contextlib import contextmanager

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from kd.commands.predict import CHUNK, add_predictions, is_text, lines_of, main, writer
from kd.data.files import read_rows
from kd.errors import KDError

COLUMNS = ["text", "n", "prediction", "probability_a"]
ROWS = [
    {"text": 'a "film", cold', "n": 1, "prediction": "a", "probability_a": 1},
    {"text": "", "n": None, "prediction": None, "probability_a": None},
]


class Model:
    """Is sure of the second label."""

    label_names = ("a", "b")

    def probabilities(self, texts, batch_size):
        return np.array([[0.25, 0.75]] * len(texts))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_is_read_again_by_kd(suffix, tmp_path):
    path = tmp_path / f"out.{suffix}"
    with writer(path, COLUMNS) as write:
        for row in ROWS:
            write([row])
        assert not path.exists(), "it has its name when it is whole"
    assert list(tmp_path.iterdir()) == [path]
    rows = read_rows(path)
    assert rows.columns == COLUMNS
    texts = suffix in ("csv", "tsv")
    expected = [
        {name: ("" if value is None else str(value)) if texts else value for name, value in row.items()} for row in ROWS
    ]
    assert [row for _, row in rows] == expected


def test_without_a_path_csv_is_printed(capsys):
    with writer(None, COLUMNS) as write:
        write(ROWS)
    printed = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [row["text"] for row in printed] == [row["text"] for row in ROWS]


@pytest.mark.parametrize("name", ["out.csv.gz", "out.arrow", "out.txt"])
def test_a_format_that_kd_does_not_write_is_refused(name, tmp_path):
    with pytest.raises(KDError, match=r"expected \.csv, \.tsv, \.jsonl"), writer(tmp_path / name, COLUMNS):
        pass


@pytest.mark.parametrize(
    ("suffix", "row", "said"),
    [
        ("tsv", {"text": "a\tb"}, "a tab or a line end, which TSV cannot"),
        ("tsv", {"text": "a\rb"}, "a tab or a line end, which TSV cannot"),
        ("csv", {"more": 1}, "the key 'more', which the first row lacks"),
        ("parquet", {"more": 1}, "the key 'more', which the first row lacks"),
        ("parquet", {"n": "many"}, "a column changes its type"),
    ],
)
def test_rows_that_a_format_cannot_hold_leave_no_file(suffix, row, said, tmp_path):
    with pytest.raises(KDError, match=said), writer(tmp_path / f"out.{suffix}", COLUMNS) as write:
        write(ROWS)
        write([ROWS[0] | row])
    assert not list(tmp_path.iterdir())


def test_a_parquet_file_without_rows_has_its_columns(tmp_path):
    with writer(tmp_path / "out.parquet", COLUMNS):
        pass
    schema = pyarrow.parquet.read_schema(tmp_path / "out.parquet")
    assert schema.names == COLUMNS and schema.field("probability_a").type == pyarrow.float64()


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(KDError, match="cannot write"), writer(tmp_path / "no" / "out.jsonl", COLUMNS):
        pass


def test_rows_without_a_text_have_no_prediction():
    rows = [{"text": "a film"}, {"text": " "}, {"text": None}, {"text": json.loads(r'"\ud800"')}]
    assert add_predictions(Model(), rows, "text", ["prediction", "probability_a", "probability_b"], 8) == 3
    assert rows[0] == {"text": "a film", "prediction": "b", "probability_a": 0.25, "probability_b": 0.75}
    assert all(row["prediction"] is None for row in rows[1:])
    assert is_text("x") and not is_text(3)


@contextmanager
def pipe():
    """A pipe: its end to read as standard input, and its end to write."""
    source, sink = os.pipe()
    with os.fdopen(source) as stream, os.fdopen(sink, "wb", buffering=0) as into:
        yield stream, into


def test_standard_input_is_answered_when_it_pauses():
    with pipe() as (stream, into):
        found = lines_of(stream)
        for sent, expected in [
            ("\ufeffgrün\n", ["grün"]),
            ("one\r\ntwo\rthr", ["one", "two"]),
            ("ee\n\n", ["three", ""]),
        ]:
            into.write(sent.encode())
            assert next(found) == expected
        into.write("ü".encode()[:1])
        into.write("ü".encode()[1:] + b"\r")
        into.close()
        assert list(found) == [["ü"]]


def test_a_full_pipe_is_read_in_chunks(tmp_path):
    """Whatever the size of the blocks in which it comes, and without a line end at the end."""
    texts = [f"{number} " + "é" * (number % 50) for number in range(2 * CHUNK + 10)]
    (tmp_path / "texts").write_text("\n".join(texts))
    with (tmp_path / "texts").open() as stream:
        found = list(lines_of(stream))
    assert [len(lines) for lines in found] == [CHUNK, CHUNK, 10]
    assert [line for lines in found for line in lines] == texts


def test_standard_input_that_is_no_text_is_refused():
    for sent in (b"\xff\n", "ü".encode()[:1]):
        with pipe() as (stream, into), pytest.raises(KDError, match="standard input is not UTF-8 after line 1"):
            into.write(b"good\n" + sent)
            into.close()
            list(lines_of(stream))
    with pytest.raises(KDError, match="found that standard input is closed"):
        next(lines_of(None))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "text", "--file", "in.csv"], "expected texts or --file, got both"),
        (["run", "text", "--batch-size", "0"], "--batch-size: expected at least 1, got 0"),
        (["run", "--file", "in.csv", "--out", "./in.csv"], "--out would overwrite the input in.csv"),
    ],
)
def test_arguments_that_do_not_fit(arguments, said):
    with pytest.raises(KDError, match=said):
        main(arguments)
