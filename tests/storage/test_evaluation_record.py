"""``evaluation.json``: read back whole, and refused when it is not."""

import pytest

from kd.errors import KDError, NewerError
from kd.storage import evaluation_record, records

ESTIMATE = {"value": 0.75, "low": 0.5, "high": 0.9}
DROP = {"value": -0.1, "low": -0.2, "high": -0.05}
FIRST = {
    **{"name": "test", "rows": 4, "metrics": {"accuracy": ESTIMATE, "ece": ESTIMATE}, "difference": None},
    **{"teacher": {"agreement": ESTIMATE}, "slices": []},
}
OTHER = {
    **FIRST,
    "name": "other.csv",
    "difference": DROP,
    "slices": [{"name": "negation", "rows": 20, "difference": DROP}],
}
CONTENT = {
    **{"format": records.FORMAT, "data": [FIRST, OTHER]},
    "robustness": [{"name": "word order shuffled", "difference": DROP, "flipped": ESTIMATE}],
}


def test_it_is_read_back(tmp_path):
    assert evaluation_record.read(tmp_path) is None
    records.write(tmp_path / evaluation_record.NAME, CONTENT)
    assert evaluation_record.read(tmp_path) == CONTENT


def test_what_is_wrong_is_refused(tmp_path):
    for wrong in ({"data": []}, {"robustness": None}, {"data": [{**FIRST, "rows": "4"}]}):
        records.write(tmp_path / evaluation_record.NAME, {**CONTENT, **wrong})
        with pytest.raises(KDError, match=r"is damaged: .*; run kd evaluate again"):
            evaluation_record.read(tmp_path)
    records.write(tmp_path / evaluation_record.NAME, {**CONTENT, "format": records.FORMAT + 1})
    with pytest.raises(NewerError):
        evaluation_record.read(tmp_path)
