"""``audit.json``: read back whole, and refused when it is not."""

import pytest

from kd.errors import KDError, NewerError
from kd.storage import audit_record, records

EFFECT = {"difference": -0.1, "low": -0.2, "high": -0.05, "p": 0.01}
SHARE = {"share": 0.25, "low": 0.2, "high": 0.3}
COMPARISON = {
    **{"measure": "score", "attribute": "gender", "group": "female", "reference": "male", "pairs": 44, "units": 64},
    **{"biases": {"student": EFFECT, "alone": EFFECT}, "changes": {"alone": EFFECT}, "verdicts": {"alone": "kept"}},
}
CONTENT = {
    **{"format": records.FORMAT, "source": "templates", "texts": 5632, "of_class": "positive", "least": 0.01},
    **{"models": {"student": ".", "alone": "../alone"}, "comparisons": [COMPARISON], "sentence": "Audited for bias."},
    "flips": {"source": "validation", "texts": 9, "pairs": 4, "shares": {"student": SHARE}, "examples": []},
}


def test_it_is_read_back(tmp_path):
    records.write(tmp_path / audit_record.NAME, CONTENT)
    assert audit_record.read(tmp_path) == CONTENT


def test_what_is_wrong_is_refused(tmp_path):
    with pytest.raises(KDError, match=r"found no audit\.json; make one with kd audit"):
        audit_record.read(tmp_path)
    other = {**COMPARISON, "verdicts": {"alone": "worse"}}
    for wrong in ({"comparisons": []}, {"models": {"friend": "."}}, {"comparisons": [other]}, {"flips": {}}):
        records.write(tmp_path / audit_record.NAME, {**CONTENT, **wrong})
        with pytest.raises(KDError, match=r"is damaged: .*; run kd audit again"):
            audit_record.read(tmp_path)
    records.write(tmp_path / audit_record.NAME, {**CONTENT, "format": records.FORMAT + 1})
    with pytest.raises(NewerError):
        audit_record.read(tmp_path)
