"""Rows in an Arrow table."""

import numpy as np
import pyarrow as pa
import pytest

from kd.data import store
from kd.data.store import Store, dataset_of, rows_of

TEXTS = ("a", "b", "é", "d", "e")
SIDES = [bytes([number, *range(15)]) for number in range(5)]


def table(texts=TEXTS):
    rows = Store()
    for number, text in enumerate(texts):
        rows.add(text, number % 2, number + 2, 7, SIDES[number])
    return rows.table()


def dataset(texts=TEXTS):
    rows = table(texts)
    return dataset_of(rows, rows["label"].to_numpy())


def test_rows_come_back_as_they_were_added(monkeypatch):
    monkeypatch.setattr(store, "FLUSH_ROWS", 2)
    rows = table()
    assert len(rows) == 5 and rows["text"].num_chunks == 3
    assert list(rows_of(rows)) == [
        *(("a", 0, 2, 7, SIDES[0]), ("b", 1, 3, 7, SIDES[1]), ("é", 0, 4, 7, SIDES[2])),
        *(("d", 1, 5, 7, SIDES[3]), ("e", 0, 6, 7, SIDES[4])),
    ]
    assert (np.diff(rows["first"].to_numpy()) > 0).all(), "the first byte weighs most"


def test_no_rows_are_a_table_too():
    rows = Store().table()
    assert len(rows) == 0 and list(rows_of(rows)) == [] and len(rows["label"].to_numpy()) == 0


def test_rows_are_chosen_and_joined():
    rows = table()
    both = pa.concat_tables([rows.filter(pa.array([bool(label) for label in rows["label"].to_pylist()])), rows[:1]])
    assert list(rows_of(both)) == [("b", 1, 3, 7, SIDES[1]), ("d", 1, 5, 7, SIDES[3]), ("a", 0, 2, 7, SIDES[0])]
    assert len(rows.filter(pa.array([False] * 5))) == 0


@pytest.mark.parametrize(("name", "value"), [("FLUSH_ROWS", 2), ("FLUSH_CHARACTERS", 2)])
def test_the_checksum_depends_on_the_content_and_not_on_the_chunks(monkeypatch, name, value):
    rows, checksum = dataset()
    assert rows.to_dict() == {"text": ["a", "b", "é", "d", "e"], "label": [0, 1, 0, 1, 0], "line": [2, 3, 4, 5, 6]}
    monkeypatch.setattr(store, name, value)
    assert dataset()[1] == checksum
    assert dataset(("a", "b", "é", "d", "f"))[1] != checksum
    assert dataset(("ab", "", "é", "d", "e"))[1] != checksum, "the border between two texts counts"
