"""The schema of ``comparison.json``."""

import pytest

from kd.errors import KDError
from kd.storage import comparison_record, records

CONTENT = {
    **{"format": 2, "source": "validation", "rows": 50, "teacher": "../teacher", "student": "dan", "trained": True},
    "findings": [
        {"name": "length", "sentence": "Half of the texts are cut.", "setting": "data.max_length=64"},
        {"name": "CKA", "sentence": "They are alike.", "setting": None},
    ],
    **{"probes": [[0.6, 0.8], [0.7]], "shares": [1.0, 0.9], "similarity": [[0.2, 0.51]]},
    "softness": [{"temperature": 1.0, "entropy": 0.3, "information": 0.05}],
    "agreement": 0.9,
    "groups": [{"name": "gold good", "rows": 20, "agreement": 0.8, "low": 0.6, "high": 0.9}],
    "examples": [
        {"text": "a", "gold": "good", "labels": ["good", "bad"], "probabilities": [0.9, 0.8], "divergence": 0.3}
    ],
    "sentence": "Compared with its teacher on 50 held-out rows (validation).",
}


def test_what_is_written_is_read_and_other_content_refused(tmp_path):
    records.write(tmp_path / comparison_record.NAME, CONTENT)
    assert comparison_record.read(tmp_path) == CONTENT
    for wrong in ({"agreement": 1.2}, {"probes": [[0.5]]}, {"findings": [{"name": "x"}]}):
        records.write(tmp_path / comparison_record.NAME, CONTENT | wrong)
        with pytest.raises(KDError, match="run kd compare again"):
            comparison_record.read(tmp_path)
