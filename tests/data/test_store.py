"""Rows in flat arrays."""

import numpy as np
import pytest

from kd.data import store
from kd.data.store import Store

SIDES = [bytes([number, *range(15)]) for number in range(5)]


def table(texts=("a", "b", "é", "d", "e")):
    rows = Store()
    for number, text in enumerate(texts):
        rows.add(text, number % 2, number + 2, 7, SIDES[number])
    return rows.table()


def test_rows_come_back_as_they_were_added(monkeypatch):
    monkeypatch.setattr(store, "FLUSH_ROWS", 2)
    rows = table()
    assert len(rows) == 5 and rows.texts.num_chunks == 3
    assert rows.texts.to_pylist() == ["a", "b", "é", "d", "e"]
    assert (rows.labels.tolist(), rows.lines.tolist(), set(rows.files)) == ([0, 1, 0, 1, 0], [2, 3, 4, 5, 6], {7})
    assert [rows.side(row) for row in range(5)] == SIDES
    assert (np.diff(rows.sides[:, 0]) > 0).all(), "the first byte weighs most"


def test_rows_are_chosen_and_joined():
    rows = table()
    both = rows.where(rows.labels == 1).followed_by(rows.where(rows.lines == 2))
    assert both.texts.to_pylist() == ["b", "d", "a"] and both.labels.tolist() == [1, 1, 0]
    assert both.side(2) == SIDES[0]
    assert len(rows.where(np.zeros(5, dtype=bool))) == 0


@pytest.mark.parametrize(("name", "value"), [("FLUSH_ROWS", 2), ("FLUSH_CHARACTERS", 2)])
def test_the_checksum_depends_on_the_content_and_not_on_the_chunks(monkeypatch, name, value):
    dataset, checksum = table().dataset()
    assert dataset.to_dict() == {"text": ["a", "b", "é", "d", "e"], "label": [0, 1, 0, 1, 0], "line": [2, 3, 4, 5, 6]}
    monkeypatch.setattr(store, name, value)
    assert table().dataset()[1] == checksum
    assert table(("a", "b", "é", "d", "f")).dataset()[1] != checksum
    assert table(("ab", "", "é", "d", "e")).dataset()[1] != checksum, "the border between two texts counts"
