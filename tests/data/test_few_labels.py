"""Few labels: which rows keep theirs."""

import numpy as np
import pytest

from kd.contract import IGNORED_LABEL
from kd.data.few_labels import with_labels
from kd.data.labels import LabelReader
from kd.data.splits import SplitBuilder
from kd.errors import KDError
from tests.conftest import make_reviews


@pytest.fixture(scope="module")
def splits():
    builder, names = SplitBuilder(LabelReader(["negative", "positive"]), 0.2, 0.2), ("negative", "positive")
    builder.add("train", "a.csv", [(n, text, names[label]) for n, (text, label) in enumerate(make_reviews(120))])
    return builder.finish()


def test_a_smaller_number_is_a_part_of_a_larger_one(splits):
    before, few, more = (
        np.array(each.train["label"]) for each in (splits, with_labels(splits, 10), with_labels(splits, 30))
    )
    kept = [np.flatnonzero(labels != IGNORED_LABEL) for labels in (few, more)]
    assert [len(rows) for rows in kept] == [10, 30] and set(kept[0]) <= set(kept[1])
    assert (few[kept[0]] == before[kept[0]]).all()


def test_the_counts_follow_and_the_other_splits_stay(splits):
    few = with_labels(splits, 10)
    counts = few.counts["splits"]["train"]
    assert sum(counts["labels"].values()) == 10 and counts["unlabelled"] == counts["rows"] - 10
    assert few.counts["unlabelled"] == counts["unlabelled"] and splits.counts["unlabelled"] == 0
    assert counts["sha256"] != splits.counts["splits"]["train"]["sha256"]
    assert few.test["label"] == splits.test["label"] and few.train["text"] == splits.train["text"]


def test_numbers_that_cannot_work_are_refused(splits):
    with pytest.raises(KDError, match=r"at most the .* training rows that have a label, got 1,000"):
        with_labels(splits, 1000)
    with pytest.raises(KDError, match=r"data.labelled=1: expected rows of each label, found none of"):
        with_labels(splits, 1)
