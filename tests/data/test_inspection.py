"""The figures that ``kd data inspect`` shows."""

import numpy as np
import pytest

from kd.data import inspection
from kd.data.inspection import Lengths
from kd.data.sources import from_files
from kd.data.tokenizers import WordTokenizer
from tests.data.writing import raw, reviews, write

OPTIONS = {"text": "text", "label": "label", "encoding": "utf-8"}


def test_files_are_found_as_a_run_finds_them(tmp_path):
    write(tmp_path / "train.parquet", reviews(9))
    raw(tmp_path / "Val.csv", "text;label\nx;1\n".encode("utf-16"))
    raw(tmp_path / "test.csv", "text,label\nx,1\n")
    layout, files = inspection.found(OPTIONS | {"path": str(tmp_path)})
    assert layout.kind == "a folder"
    assert [(facts.role, facts.name, facts.encoding) for facts in files] == [
        ("train", "train.parquet", ""),
        ("validation", "Val.csv", "utf-16"),
        ("test", "test.csv", "utf-8"),
    ]
    assert "delimiter ';' (semicolon)" in files[1].taken and files[2].columns == ["text", "label"]


def test_figures_and_bins_count_every_text():
    lengths = Lengths("words", np.array([0, 3, 3, 5, 9, 200]))
    assert lengths.figures() == {
        "least": "0",
        "mean": "36.7",
        "median": "4",
        "95 %": "152",
        "99 %": "190",
        "most": "200",
    }
    bins = lengths.bins()
    assert sum(count for _, _, count in bins) == 6 and bins[-1][2] == 1 and len(bins) == 10
    assert Lengths("words", np.array([1])).bins()[1] == (1, 1, 1)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("a fine film number {}", "words"), ("这家酒店的房间非常好，服务也很周到，下次还会再来的{}", "characters")],
)
def test_lengths_are_words_where_there_are_spaces(tmp_path, text, unit):
    splits = from_files(str(write(tmp_path / "a.csv", [{"text": text.format(i), "label": i % 2} for i in range(60)])))
    lengths = inspection.lengths(splits)
    assert (lengths.unit, len(lengths.values)) == (unit, 60)
    tokenizer = WordTokenizer(min_count=1)(splits.train["text"])
    pieces = inspection.pieces(splits, tokenizer)
    assert pieces.unit == "pieces" and len(pieces.values) == 60 and pieces.values.min() >= 2
