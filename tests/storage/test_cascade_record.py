"""``cascade.json``: read back whole, and refused when it is not."""

import pytest

from kd.errors import KDError, NewerError
from kd.storage import cascade_record, records

ROWS = {"rows": 4, "answered": [3, 1], "differing": 0, "accuracy": None, "teacher_accuracy": None, "milliseconds": 1.0}
STAGE = {"path": "../t", "checksum": "0" * 64, "temperature": 1.0, "milliseconds": 1.0}
CONTENT = {
    **{"format": records.FORMAT, "students": [STAGE], "teacher": STAGE, "kind": "agreement", "target": 0.98},
    **{"confidence": 0.95, "threshold": None, "bound": 0.98, "source": "test", "calibration": ROWS, "measured": None},
}


def test_it_is_read_back(tmp_path):
    records.write(tmp_path / cascade_record.NAME, CONTENT)
    assert cascade_record.read(tmp_path) == CONTENT


def test_what_is_wrong_is_refused(tmp_path):
    with pytest.raises(KDError, match=r"found no cascade\.json; make one with kd cascade"):
        cascade_record.read(tmp_path)
    for wrong in ({"kind": "other"}, {"students": []}, {"threshold": "high"}):
        records.write(tmp_path / cascade_record.NAME, {**CONTENT, **wrong})
        with pytest.raises(KDError, match=r"is damaged: .*; run kd cascade again"):
            cascade_record.read(tmp_path)
    records.write(tmp_path / cascade_record.NAME, {**CONTENT, "format": records.FORMAT + 1})
    with pytest.raises(NewerError):
        cascade_record.read(tmp_path)
