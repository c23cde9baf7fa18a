"""Which rows without a label are kept after the teacher's labelling."""

import numpy as np
import pytest

from kd.errors import KDError
from kd.options.sections import Selection
from kd.teacher.selection import chosen_rows

LABELS = np.array([0, 1, -100, -100, -100, -100, -100, -100])
LOGITS = np.array([[0, 0], [0, 0], [4, 0], [3, 0], [2, 0], [0, 1], [0, 0.5], [0, 5.0]])


def kept(student=None, seed=0, **options) -> list[int]:
    found = chosen_rows(Selection(**options), LABELS, LOGITS, student, ["negative", "positive"], seed).tolist()
    assert found[:2] == [0, 1], "rows with a label stay"
    return found[2:]


def test_the_teachers_entropy_orders_them():
    assert kept(rows=2, by="confident") == [2, 7]
    assert kept(rows=3, by="uncertain") == [4, 5, 6]
    assert kept(rows=100, by="uncertain") == [2, 3, 4, 5, 6, 7]


def test_without_enough_rows_it_warns_or_refuses(caplog):
    kept(rows=6)
    assert "is more than" not in caplog.text
    kept(rows=7)
    assert "selection.rows=7 is more than the 6 rows without a label; all are kept" in caplog.text
    with pytest.raises(KDError, match=r"selection\.rows=7 chooses among the rows without a label, found none"):
        chosen_rows(Selection(rows=7), LABELS[:2], LOGITS[:2], None, ["negative", "positive"], 0)


def test_classes_are_balanced_as_far_as_there_are_rows():
    assert kept(rows=2, by="uncertain", balanced=True) == [4, 6]
    assert kept(rows=4, by="uncertain", balanced=True) == [3, 4, 5, 6]
    assert kept(rows=5, by="uncertain", balanced=True) == kept(rows=5, by="uncertain", balanced=True)


def test_disagreement_is_the_divergence_from_a_student():
    def student(rows):
        assert rows.tolist() == [2, 3, 4, 5, 6, 7]
        return np.where(np.isin(rows, [3, 5])[:, None], -LOGITS[rows], LOGITS[rows])

    assert kept(student, rows=2, by="disagreement") == [3, 5]


def test_the_seed_decides_a_random_choice():
    choices = {tuple(kept(rows=3, seed=seed)) for seed in range(8)}
    assert len(choices) > 3 and tuple(kept(rows=3, seed=1)) == tuple(kept(rows=3, seed=1))
