"""Rows of CSV and TSV: header, repeated header, rows that are left out."""

import pytest

from kd.data.delimited import DelimitedFile
from kd.data.dialect import Reading
from kd.errors import KDError
from tests.data.writing import raw


def test_faults_of_rows_are_said(tmp_path):
    path = raw(tmp_path / "a.csv", 'text,label\na,b,1\n"x"y,1\n\ntext,label\nok,1\n')
    file = DelimitedFile(path, Reading(), ",")
    assert list(file.rows()) == [(6, {"text": "ok", "label": "1"})]
    assert (file.malformed.lines, file.malformed.fault) == ([2, 3], "3 fields instead of 2")
    assert (file.blank.lines, file.repeated.lines) == ([4], [5])


@pytest.mark.parametrize("header", [False, ["text", "label"]])
def test_a_file_without_a_header(tmp_path, header):
    file = DelimitedFile(raw(tmp_path / "a.csv", "x,1\ny,0\n"), Reading(header=header), ",")
    names = header or ["column_1", "column_2"]
    assert not file.header and list(file.rows()) == [
        (1, dict(zip(names, ["x", "1"], strict=True))),
        (2, dict(zip(names, ["y", "0"], strict=True))),
    ]


def test_given_names_that_stand_in_the_file_are_no_row(tmp_path):
    file = DelimitedFile(raw(tmp_path / "a.csv", "text,label\nx,1\n"), Reading(header=["text", "label"]), ",")
    assert file.header and list(file.rows()) == [(2, {"text": "x", "label": "1"})]


def test_a_header_of_another_width_is_refused_with_names(tmp_path):
    path = raw(tmp_path / "a.csv", "0,some text of many words\n4,other\n")
    with pytest.raises(KDError, match=r"data.header has 3 names, and the first line .* has 2 fields"):
        DelimitedFile(path, Reading(header=["a", "b", "c"]), ",")
    file = DelimitedFile(path, Reading(wanted=("review", "stars")), ",")
    assert file.hint().endswith("data.header=[stars,review] gives a name to each column")


def test_excels_first_line_is_no_row(tmp_path):
    file = DelimitedFile(raw(tmp_path / "a.csv", b"\xef\xbb\xbfsep=;\r\ntext;label\r\nx;1\r\n"), Reading(), ",")
    assert list(file.rows()) == [(3, {"text": "x", "label": "1"})]
