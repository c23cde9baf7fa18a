"""Finding out how a delimited file is written."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.data.dialect import Dialect, Reading, looks_like_a_row, names_for, sniffed, writes_quotes
from kd.errors import KDError

WANTED = Reading(wanted=("text", "label"))


def dialect(text: str, default: str = ",", reading: Reading = WANTED) -> Dialect:
    lines = text.splitlines(keepends=True)
    return sniffed(lines, lines, default, reading)


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("text,label\na;b;c,1\n", ",", Dialect(",", "doubled")),
        ("text;label\na,b,1;1\n", ",", Dialect(";", "doubled")),
        ("text\tlabel\na,b\t1\n", ",", Dialect("\t", "none")),
        ("text|label\na|1\n", ",", Dialect("|", "doubled")),
        ("text,label\na,1\n", "\t", Dialect(",", "doubled")),
        ("sep=;\ntext;label\na;1\n", ",", Dialect(";", "doubled", skip=True)),
        ("review;stars\na, b;1\nc;2\n", ",", Dialect(";", "doubled")),  # by the width of the rows
        ("review\na, b, c\nd\n", ",", Dialect(",", "doubled")),
        ('text,label\n"so \\"good\\", he said",1\n', ",", Dialect(",", "backslash")),
        ('text,label\n"C:\\",1\n"so ""good""",1\n', ",", Dialect(",", "doubled")),
        ('text\tlabel\n"say ""hi"""\t1\n', "\t", Dialect("\t", "doubled")),
        ('text\tlabel\n"one\ttwo"\t1\n', "\t", Dialect("\t", "doubled")),
        ('"text"\t"label"\n"one"\t"1"\n', "\t", Dialect("\t", "doubled")),
        ('text\tlabel\n"so he said\t1\n\'s fine "\t0\n', "\t", Dialect("\t", "none")),
        ('text\tlabel\n"all of it"\t1\n', "\t", Dialect("\t", "none")),  # as before: a quoted sentence of GLUE
        ('text\tlabel\n"a" and "b"\t1\nshe ""said""\t1\n', "\t", Dialect("\t", "none")),
        ("", ",", Dialect(",", "doubled")),
        ("'text','label'\n'so, it''s good','1'\n'dull','0'\n", ",", Dialect(",", "single")),
        ("text,label\n'so, it''s good',1\ndull,0\n", ",", Dialect(",", "single")),  # quoted where it needs to be
        ("text;label\n'good; bad';1\n'dull';0\n", ",", Dialect(";", "single")),
        ("text,label\n'tis good,1\nit's dull,0\n", ",", Dialect(",", "doubled")),
        ("text,label\n'so good' he said,1\nrock 'n' roll,0\n", ",", Dialect(",", "doubled")),
        ("text,label\n\"'so', he said\",1\n'dull',0\n", ",", Dialect(",", "doubled")),
    ],
)
def test_what_is_found(text, default, expected):
    assert dialect(text, default) == expected


def test_what_is_given_is_taken():
    text = 'text;label\n"a ""b""";1\n'
    assert dialect(text, reading=Reading(delimiter="bar", quoting="none")) == Dialect("|", "none")
    for name, character in (("tab", "\t"), ("\\t", "\t"), ("semicolon", ";"), ("#", "#")):
        assert Reading(delimiter=name).delimiter == character
    for options in ({"delimiter": ""}, {"delimiter": ", "}, {"delimiter": '"'}, {"header": []}, {"header": ["a", "a"]}):
        with pytest.raises(KDError, match="expected"):
            Reading(**options)


CELL = st.text(st.sampled_from('ab ,;|\t"\n\\é'), min_size=1, max_size=12)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.tuples(CELL, st.sampled_from(["good", "bad"])), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    default=st.sampled_from(",\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_what_pythons_csv_writes_is_read_back(rows, delimiter, default, quoting):
    """As pandas writes tables. The label stands first, so that a text of one cell is not taken for the delimiter."""
    stream = io.StringIO(newline="")
    table = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    table.writerows([("label", "text"), *((label, text) for text, label in rows)])
    content = stream.getvalue()
    if delimiter == "\t" and not any(mark in text for text, _ in rows for mark in '"\n\t'):
        return  # no quotes, or those of a file that could be written in both ways
    found = dialect(content, default)
    assert found.delimiter == delimiter
    lines = io.StringIO(content, newline="")
    again = list(found.reader(lines))[1:]
    if found.quoting == "doubled":
        assert again == [[label, text] for text, label in rows]
    else:
        # Only where a file without quotes gives rows of the same width as well, as GLUE's may.
        assert delimiter == "\t" and all(len(row) == 2 for row in again if row)


def test_a_quote_that_opens_and_never_closes_is_a_normal_character():
    assert not writes_quotes(["text\tlabel\n", '"so he said\t1\n', "and went\t0\n"], "\t")
    assert not writes_quotes([], "\t")


def test_first_lines_that_are_rows_get_names():
    assert looks_like_a_row(["0", "x"]) and looks_like_a_row(["a", "this is quite a long text"])
    assert not looks_like_a_row(["v1", "v2", ""])
    table = [["4", "1", "NO_QUERY", "so fine a film"], ["0", "2", "NO_QUERY", "dull"], ["4", "3", "NO_QUERY", "warm"]]
    assert names_for(table, "text", "stars") == ["stars", "column_2", "column_3", "text"]
