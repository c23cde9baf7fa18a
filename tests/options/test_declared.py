"""What an annotation says of an option: in words, and held against values."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt

from kd.errors import OptionError
from kd.options.declared import (
    Checked,
    Count,
    Finite,
    NotNegative,
    Probability,
    Seed,
    Share,
    Spread,
    Temperature,
    TextLength,
    Width,
    checked,
    in_words,
)
from kd.options.declared import options_of as options

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (bool, [True, False], ["no", "off", 1, 0, None, "true", [True]]),
        (int, [0, -3], [True, 1.0, "1", None]),
        (float, [1, 1.5], [True, "1", None]),
        (str, ["", "a"], [1, None, ["a"]]),
        (Finite, [0, -1.5], [NAN, INF, -INF, None]),
        (NotNegative, [0, 2.5], [-1e-9, INF, NAN, 1e30]),
        (Share, [0, 1, 0.5], [-0.1, 1.1, True, NAN]),
        (Probability, [0, 0.95], [0.96, 1, -0.1]),
        (Temperature, [0.01, 1, 1000], [0, 0.001, 1e30, NAN]),
        (Spread, [0.02, 1], [0, 1e-9, 1e9]),
        (Width, [1, 768], [0, 10**6]),
        (TextLength, [3, 512], [0, 2, 10**9]),
        (Count, [1, 10**9], [0, -1, 1.0, True]),
        (Seed, [0, 2**32 - 1], [-1, 2**32]),
        (Literal["mean", "cls"], ["mean"], ["max", None, 1]),
        (Count | None, [None, 1], [0, "null"]),
        (list[int], [[], [1, 2]], [1, ["1"], [True], None]),
        (tuple[float, float], [[0.9, 0.999]], [[], [0.9], "ab"]),
        (dict[str, Any], [{}, {"a": 1}], [[], None]),
        (Annotated[float, Gt(0), Lt(1)], [0.5], [0, 1]),
    ],
    ids=lambda value: str(value) if not isinstance(value, list) else "",
)
def test_values_are_held_as_strictly_as_yaml_is_read(annotation, good, bad):
    def function(option: annotation):
        pass

    option = options(function)["option"]
    for value in good:
        option.require(value)
    for value in bad:
        with pytest.raises(OptionError, match=r"^option must be "):
            option.require(value)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Annotated[int, Ge(2)], "a whole number of at least 2"),
        (Annotated[int, Ge(0), Lt(2**32)], "a whole number in [0, 4294967296)"),
        (Annotated[float, Gt(0)], "a number above 0"),
        (Annotated[float, Ge(0), Le(1)] | None, "a number in [0, 1] or null"),
        (Literal["a", "b", "c"], "a, b or c"),
        (bool, "true or false"),
        (tuple[float, float], "a list of 2: a number, a number"),
    ],
)
def test_in_words(annotation, words):
    assert in_words(annotation) == words


class Base(Checked):
    """A base.

    Args:
        share: of the base.
    """

    def __init__(self, share: Share):
        self.share = share


class Extended(Base):
    """An extension.

    Args:
        rows, columns: how many
            there are.
    """

    def __init__(self, rows: Count, columns: Count = 1, **rest: Any):
        super().__init__(**rest)


def test_meanings_come_from_the_class_and_those_it_extends():
    found = options(Extended)
    assert found["rows"].meaning == found["columns"].meaning == "how many there are."
    assert options(Base)["share"].meaning == "of the base."


def test_sizes_that_overflow_are_refused():
    assert Extended(2**31 - 1, share=0.5)
    with pytest.raises(OptionError, match=f"rows must be a whole number of at least 1 and at most {2**31 - 1}, found "):
        Extended(2**31, share=0.5)


def test_constructors_refuse_what_they_do_not_declare():
    assert Extended(1, share=0.5).share == 0.5
    with pytest.raises(OptionError, match="rows must be a whole number of at least 1, found 0"):
        Extended(0, share=0.5)
    with pytest.raises(OptionError, match=r"share must be a number in \[0, 1\], found 2"):
        Extended(1, share=2)
    with pytest.raises(TypeError):
        Extended()


def test_functions_and_dataclasses_declare_alike():
    @checked
    def half(value: NotNegative) -> float:
        return value / 2

    @dataclass
    class Section:
        value: NotNegative

    assert half(3) == 1.5
    assert options(half) == options(Section)
    with pytest.raises(OptionError):
        half(-1)


def test_annotations_that_cannot_be_read_declare_nothing():
    def foreign(value: "Unknown") -> None:  # noqa: F821
        pass

    assert options(foreign) == {}
