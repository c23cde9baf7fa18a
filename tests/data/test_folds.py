"""Folds: each row is tested once, duplicates are in one fold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd.data.folds import Fold, chosen_fold, folds_of
from kd.data.labels import LabelReader
from kd.data.splits import SplitBuilder
from kd.errors import KDError


def in_fold(number: int | None, rows, folds: int = 10, **options):
    fold = None if number is None else Fold(number, folds)
    builder = SplitBuilder(LabelReader(["a", "b"]), fold=fold, **options)
    builder.add("train", "rows.csv", rows)
    return builder.finish()


def test_folds_test_each_row_once_and_duplicates_share_a_fold():
    texts = [f"text number {row}" for row in range(400)]
    rows = [(line, text, "ab"[line % 2]) for line, text in enumerate([*texts, *(f"{text} !" for text in texts)])]
    whole, tested = in_fold(None, rows), []
    for number in range(10):
        found = in_fold(number, rows)
        parts = {name: set(getattr(found, name)["text"]) for name in ("train", "validation", "test")}
        assert set.union(*parts.values()) == {text for _, text, _ in rows}
        assert sum(map(len, parts.values())) == 800, "no text is in two splits"
        assert all((text + " !" in parts["test"]) == (text in parts["test"]) for text in texts)
        assert 0.04 < len(parts["validation"]) / 800 < 0.18
        tested += parts["test"]
        if number == 0:
            assert found.counts["splits"] == whole.counts["splits"], "fold 0 is the usual split"
    assert sorted(tested) == sorted(text for _, text, _ in rows)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(2, 1000))
def test_every_hash_has_one_fold(hashes, folds):
    found = folds_of(np.array(hashes, dtype=np.uint64), folds)
    assert ((found >= 0) & (found < folds)).all()


def test_a_fold_beside_test_rows_is_refused():
    builder = SplitBuilder(LabelReader(["a", "b"]), fold=Fold(3, 10))
    with pytest.raises(KDError, match=r"data\.fold=3 takes the test rows from all rows"):
        builder.add("test", "test.csv", [(1, "text", "a")])


@pytest.mark.parametrize(
    ("fold", "folds", "share", "words"),
    [(10, 10, 0.1, "from 0 to 9 with data.folds=10, got 10"), (0, 2, 0.5, "leave rows for train")],
)
def test_impossible_folds_are_refused(fold, folds, share, words):
    with pytest.raises(KDError, match=words):
        chosen_fold(fold, folds, share, 0.1)
