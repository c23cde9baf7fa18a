"""Slices of a data set: which rows they hold, and which of them are named as worse."""

import numpy as np
import pytest

from kd.errors import KDError
from kd.evaluation.slices import compared, groups, masks, vocabulary

TEXTS = [
    "a film",
    "it is not good at all",
    "slow but warm",
    "do n't go there now",
    "这 部 片 不 好",
    "zzz film film film",
]


def test_each_slice_holds_its_rows():
    found = masks(TEXTS, {"film": 9, "slow": 2, "a": 9}, None, {"source": ["x", "y", "x", None, "y", "x"]})
    rows = {name: np.flatnonzero(mask).tolist() for name, mask in found.items()}
    assert rows["negation"] == [1, 3, 4] and rows["contrast word"] == [2]
    assert rows["a word in no training row"] == [1, 2, 3, 4, 5] and rows["a word in 1 to 5 training rows"] == [2]
    assert rows["source = y"] == [1, 4] and rows["source = (empty)"] == [3]
    lengths = [name for name in rows if name.startswith("words ")]
    assert lengths[0] == "words 2 to 3" and sum(len(rows[name]) for name in lengths) == len(TEXTS)
    confident = masks(TEXTS, None, np.array([[0.0, each] for each in range(6)]), {})
    assert rows.keys() & {"a word in no training row"} and "a word in no training row" not in confident
    assert [np.flatnonzero(confident[name]).tolist() for name in confident if "0.50 to" in name] == [[0, 1]]


def test_decided_slices_come_first():
    small, large = np.arange(400) < 10, (np.arange(400) >= 100) & (np.arange(400) < 250)
    correct = np.ones(400, bool)
    correct[:2] = False  # 8 of 10, which decides nothing
    correct[100:120] = False
    found = compared({"small": small, "large": large}, correct)
    assert [one["name"] for one in found] == ["large", "small"]
    assert found[1]["difference"]["value"] < found[0]["difference"]["value"] < 0


def test_words_are_counted_once_a_text():
    assert vocabulary(TEXTS)["film"] == 2


def test_a_planted_weakness_is_the_only_slice_that_is_named():
    numbers = np.random.default_rng(0)
    weak, *others = (numbers.random(1000) < 0.3 for _ in range(20))
    correct = numbers.random(1000) < np.where(weak, 0.6, 0.9)
    found = compared({"weak": weak, **{f"other {n}": rows for n, rows in enumerate(others)}}, correct)
    assert [one["name"] for one in found if one["difference"]["high"] < 0] == ["weak"] and len(found) == 20
    assert found[0]["rows"] == weak.sum() and found[0]["accuracy"] == pytest.approx(correct[weak].mean())
    alone = compared({"weak": weak}, correct)[0]["difference"]
    assert alone["high"] < found[0]["difference"]["high"], "the correction makes intervals wider"
    assert not compared({"few": np.arange(1000) < 9, "nearly all": np.arange(1000) > 8}, correct)


def test_columns_that_group_no_rows_are_refused():
    with pytest.raises(KDError, match="--slice source: expected a column with several values, found 'x' in all rows"):
        groups("source", ["x"] * 30)
    with pytest.raises(KDError, match="--slice id: expected numbers or at most 20 different values, found 30"):
        groups("id", [f"row {number}" for number in range(30)])
    assert len(groups("score", list(range(30)))) == 4
