"""``explanation.json``: read back whole, and refused when it is not."""

import pytest

from kd.errors import KDError, NewerError
from kd.storage import explanation_record, records

MADE = {"command": "kd explain RUN", "method": "ig", "names": ["student", "teacher"], "paths": ["run", "t"]}
ESTIMATE = {"mean": 0.5, "interval": [0.25, 0.75]}
MODEL = {
    **{"influence": 0.4, "change": 2.0, "gap": 0.01, "largest_gap": 0.02, "area": ESTIMATE},
    **{"ranked": [0.9, 0.5], "random": [0.9, 0.8]},
}
WORD = {
    **{"other": "teacher", "word": "plot", "towards": "positive", "texts": 7},
    **{"influences": [0.5, -0.5], "difference": {"mean": 1.0, "interval": [0.5, 1.5]}},
}
DATA = {
    **MADE,
    **{"source": "validation", "rows": 20, "left_out": 1, "shares": [0.0, 0.1], "models": [MODEL, MODEL]},
    "pairs": [{"models": ["student", "teacher"], "correlation": ESTIMATE, "same_label": 0.9}],
    **{"gain": None, "words": [WORD], "words_tested": 30},
}
OF_MODEL = {"answer": "positive", "probability": 0.9, "values": [0.1, 2.0], "change": [2.2, 2.1]}
NEIGHBOUR = {"text": "a <b>good</b> plot", "label": None, "teacher": "positive", "closeness": 0.97}
TEXT = {
    **{"text": "a film", "words": ["a", "film"], "label": "positive", "models": [OF_MODEL, OF_MODEL]},
    "neighbours": [NEIGHBOUR],
}
CONTENT = {"format": records.FORMAT, "texts": {**MADE, "rows": [TEXT]}, "data": DATA}


def test_it_is_read_back(tmp_path):
    for content in (CONTENT, {**CONTENT, "texts": None}, {**CONTENT, "data": None}):
        records.write(tmp_path / explanation_record.NAME, content)
        assert explanation_record.read(tmp_path) == content


def test_what_is_wrong_is_refused(tmp_path):
    for wrong in ({"method": "other"}, {"names": []}, {"words": [{"word": "plot"}]}):
        records.write(tmp_path / explanation_record.NAME, {**CONTENT, "data": {**DATA, **wrong}})
        with pytest.raises(KDError, match=r"is damaged: .*; run kd explain again"):
            explanation_record.read(tmp_path)
    records.write(tmp_path / explanation_record.NAME, {**CONTENT, "format": records.FORMAT + 1})
    with pytest.raises(NewerError):
        explanation_record.read(tmp_path)
