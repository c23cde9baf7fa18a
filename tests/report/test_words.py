import pytest

from kd.report.words import listed, millions, plain, plural, short


@pytest.mark.parametrize(("count", "expected"), [(33_282, "0.03"), (9_990_000, "9.99"), (22_713_986, "22.7")])
def test_millions(count, expected):
    assert millions(count) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("asset:reviews", "reviews"), ("/a/b/", "b"), ("org/x + org/y", "x + y"), ("org/x@" + "0a" * 20, "x@0a0a0a0")],
)
def test_short_names(name, expected):
    assert short(name) == expected


def test_plain_text_moves_no_cursor():
    assert plain("a\r\nb\u202ec\x9b") == "a b\ufffdc\ufffd"


def test_lists_and_counts():
    assert [listed(words) for words in ([], ["a"], ["a", "b"])] == ["", "a", "a and b"]
    assert plural(0, "run") == "0 runs"
