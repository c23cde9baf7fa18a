"""What values of a label column look like."""

import datetime
import enum
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.data.label_forms import foreign, form, is_integer, is_measured, is_number
from kd.data.labels import LabelReader
from kd.errors import KDError


class Label(enum.Enum):
    NEG = 0
    POS = 1


def refused(values: list, times: int = 3) -> str:
    """The sentence for a column; the same values as given names must be accepted as names."""
    reader = LabelReader()
    for line, value in enumerate(values * times, start=2):
        reader.read(value, "a.csv", line)
    with pytest.raises(KDError) as error:
        reader.finish()
    named = LabelReader(sorted(reader.values))
    for value in values:
        named.read(value, "a.csv", 2)
    assert named.finish()[0] == sorted(reader.values)
    return str(error.value)


NUMBERS = st.lists(st.integers(0, 9), min_size=2, max_size=5, unique=True)


@settings(deadline=None, max_examples=150)
@given(
    NUMBERS,
    st.sampled_from([np.int64, np.float32, np.bool_, np.str_, torch.tensor, np.array, Fraction, np.datetime64])
    | st.sampled_from(["tf.Tensor({}, shape=(), dtype=int32)", "MyLabel(id={})", "np.{}(1)", "numpy.int64({})"]),
)
def test_what_a_program_prints_for_an_object_is_no_class(numbers, kind):
    def printed(number: int) -> str:
        if isinstance(kind, str):
            return kind.format(number)
        return repr(kind(f"2020-01-0{number + 1 if number < 9 else 1}" if kind is np.datetime64 else number))

    values = list(dict.fromkeys(map(printed, numbers)))
    if len(values) > 1:
        said = refused(values)
        assert "are what a program prints for an object" in said and f"{values[0]!r} (3 rows)" in said


@pytest.mark.parametrize(
    "values",
    [
        list(map(repr, Label)),
        ["True_", "False_"],
        [repr("pos"), repr("neg")],
        ['"pos"', "u'neg'"],
        ["np.int64(1)", "2"],
    ],
)
def test_members_of_an_enumeration_and_quoted_names_are_no_classes(values):
    assert "what a program prints" in refused(values)


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 9), st.sampled_from([" ", ",", ", ", ";", "|", "\t", " / "]), st.sampled_from(["0 1", "0.0 1.0"]))
def test_one_hot_cells_are_no_classes(width, separator, written):
    zero, one = written.split()
    values = [separator.join(one if place == hot else zero for place in range(width)) for hot in range(width)]
    assert "are a 1 among zeros (one-hot)" in refused(values)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.integers(0, 99), min_size=3, max_size=3), min_size=2, max_size=6, unique_by=str))
def test_several_numbers_in_each_cell_are_no_classes(rows):
    assert "one-hot" in (said := refused([" ".join(map(str, row)) for row in rows])) or "several numbers" in said


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2069, 12, 31)), min_size=2, max_size=6),
    st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%y", "%Y-%m-%dT%H:%M:%SZ", "%H:%M", "%I:%M %p", "%d %B %Y", "raw"])
    | st.sampled_from(["%b %d, %Y", "%Y-%m-%d %H:%M:%S.%f", "%a, %d %b %Y %H:%M:%S GMT", "%Y/%m/%d %H:%M", "date"]),
)
def test_dates_and_times_are_no_classes(moments, written):
    kinds = {"raw": lambda moment: moment, "date": lambda moment: moment.date()}
    values = [kinds[written](moment) if written in kinds else moment.strftime(written) for moment in moments]
    values = list(dict.fromkeys(values))
    if len(values) > 1:
        assert "are dates or times" in refused(values)
        assert foreign([*map(str, values), "n/a"]) is not None


WORDS = st.from_regex(r"[A-Za-z][a-z]{1,9}([ _:-][a-z]{2,6})?", fullmatch=True).filter(
    lambda word: not is_measured(word) and word.casefold() not in ("inf", "infinity")
)


@settings(deadline=None, max_examples=150)
@given(st.lists(WORDS, min_size=2, max_size=9, unique=True))
def test_words_are_classes(values):
    assert foreign(values) is None


@pytest.mark.parametrize(
    "values",
    [
        *(
            ["film(s)", "song(s)"],
            ["18-25", "26-40"],
            ["4/5", "3/5"],
            ["24/7", "<unk>"],
            ["1.2.3", "1.3"],
            ["+1", "-1"],
        ),
        *(["C++", "C#"], ["$", "$$"], ["it's", "rock 'n' roll"], ["ENTY:cremat", "NUM:date"], ["1st", "2nd"]),
    ],
)
def test_unusual_names_are_classes(values):
    assert foreign(values) is None


def test_numbers():
    assert all(map(is_integer, ("+1", "-12", "007"))) and not any(map(is_integer, ("-+1", "1.0", "", "1" * 30)))
    assert all(map(is_measured, ("0,5", "7 %", "€3", "3€", "inf"))) and not any(map(is_measured, ("7", "three", "%")))
    assert is_number(str(Decimal("1.50"))) and form("Ｐos ") == form("pos") != form("p os")
