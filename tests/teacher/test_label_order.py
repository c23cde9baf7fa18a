"""A teacher whose labels have another order than the data's is refused."""

import dataclasses

import numpy as np
import pytest

from kd.errors import KDError
from kd.teacher.label_order import check_label_order, check_members
from kd.teacher.outputs import TeacherOutputs
from tests.teacher.conftest import split


def test_label_order_is_checked_beyond_chance():
    labels = np.arange(200) % 2
    right = np.eye(2)[labels]
    assert check_label_order("t", right, labels, ["neg", "pos"]) == 1.0
    with pytest.raises(KDError, match=r"right on 0\.0% .* 100\.0% .*\[pos, neg\]"):
        check_label_order("t", right[:, ::-1], labels, ["neg", "pos"])
    guesses = np.eye(2)[np.random.default_rng(0).integers(0, 2, 200)]
    assert 0.3 < check_label_order("t", guesses, labels, ["neg", "pos"]) < 0.7, "a useless teacher is not a mix-up"


def test_the_message_gives_the_order_of_three_labels():
    labels = np.arange(90) % 3
    logits = np.eye(3)[(labels + 1) % 3]
    with pytest.raises(KDError, match=r"teacher 't' is right on 0\.0% .* in the order \[c, a, b\]; where the data"):
        check_label_order("t", logits, labels, ["a", "b", "c"])


def test_a_few_rows_prove_nothing():
    labels = np.array([0, 1])
    assert check_label_order("t", np.eye(2)[1 - labels], labels, ["neg", "pos"]) == 0.0


def test_only_members_that_were_not_trained_here_are_checked(ready, splits, tmp_path, caplog):
    outputs = TeacherOutputs(None, tmp_path, cache=False)
    best = ready.live_logits(splits.validation["text"]).argmax(axis=1)
    rows = [*zip(splits.validation["text"], best.tolist(), strict=True)]
    with caplog.at_level("INFO", logger="kd"):
        check_members(dataclasses.replace(ready, facts={"epochs": 1}), outputs, splits)
        assert not caplog.records
        check_members(ready, outputs, dataclasses.replace(splits, validation=split(rows)))
    assert caplog.messages == ["teacher: tiny is right on 100.0 % of the validation rows"]
