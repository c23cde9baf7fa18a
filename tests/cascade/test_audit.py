"""A cascade that is watched: the sample, the running agreement, the alarms and the answers file."""

import json

import pytest

from kd.cascade.audit import CHECKED, WINDOW, Audit
from kd.errors import KDError
from kd.teacher.answers_file import read_answers

RECORD = {
    "kind": "agreement",
    "target": 0.98,
    "confidence": 0.95,
    "calibration": {"rows": 1000, "answered": [700, 300], "differing": 10},
}
TEACHER = {"negative": 0.25, "positive": 0.75}


def test_the_sample_has_its_share_and_its_seed():
    drawn = [Audit(RECORD, 0.02, seed=1).samples() for _ in range(3)]
    assert len(set(drawn)) == 1
    audit = Audit(RECORD, 0.02, seed=0)
    assert 340 < sum(audit.samples() for _ in range(20_000)) < 460
    for share in (0, 1.5):
        with pytest.raises(KDError, match="expected a share of audited texts"):
            Audit(RECORD, share)


def test_the_running_agreement_has_its_interval_and_forgets():
    audit = Audit(RECORD, 1.0)
    assert audit.agreement() is None
    for number in range(100):
        audit.compare(f"text {number}", "positive" if number else "negative", TEACHER)
    share, low, high = audit.agreement()
    assert share == 0.99 and 0.94 < low < 0.99 < high < 1
    for number in range(WINDOW):
        audit.compare(f"text {number}", "positive", TEACHER)
    assert audit.agreement()[0] == 1


def test_the_agreement_raises_an_alarm_when_it_falls_and_not_before():
    audit = Audit(RECORD, 1.0)
    for number in range(5000):  # just what is allowed: one in 50
        audit.compare("a text", "negative" if number % 50 == 0 else "positive", TEACHER)
    assert audit.alarms() == []
    for number in range(500):  # one in 12
        audit.compare("a text", "negative" if number % 12 == 0 else "positive", TEACHER)
    assert audit.alarms() == ["the agreement with the teacher has fallen below 98.0%; run kd cascade again"]
    for _ in range(100):
        audit.compare("a text", "negative", TEACHER)
    for number in range(400):  # about ln(1000) / ln(0.98 / 0.96) = 335 take the evidence back, however much it was
        assert bool(audit.alarms()) or number > 300
        audit.compare("a text", "positive", TEACHER)
    assert audit.alarms() == []
    for _ in range(50):
        audit.compare("a text", "negative", TEACHER)
    assert audit.alarms(), "it is raised again"


def test_a_cascade_for_accuracy_is_held_to_the_agreement_of_its_calibration_rows():
    assert Audit({**RECORD, "kind": "accuracy", "target": 0.999}, 1.0).floor == pytest.approx(0.9831, abs=1e-4)


def test_other_inputs_raise_an_alarm():
    audit = Audit(RECORD, 0.02)
    for number in range(CHECKED):
        audit.count(int(number % 10 >= 7))
    assert audit.alarms() == []
    for number in range(CHECKED):
        audit.count(int(number % 10 >= 6))
    assert "the texts differ from those that chose the threshold" in audit.alarms()[0]


def test_disagreements_become_an_answers_file_that_training_reads(tmp_path):
    path = tmp_path / "disagreements.jsonl"
    audit = Audit(RECORD, 1.0, path)
    assert audit.compare("a charming film", "positive", TEACHER)
    assert not audit.compare("A dull film", "negative", TEACHER)
    assert not audit.compare("a dull  film", "negative", TEACHER), "the same text is kept once"
    Audit(RECORD, 1.0, path).compare("a dull film", "negative", TEACHER)  # after a new start too
    assert len(path.read_text().splitlines()) == 1
    table = read_answers(path, ["negative", "positive"], "text", "label", "utf-8", 1.0, 1e-4)
    assert table.kind == "probabilities" and table.of(["a dull film"]).argmax(axis=1).tolist() == [1]
    unkept = Audit(RECORD, 1.0)
    unkept.compare("a dull film", "negative", TEACHER)
    assert not unkept._kept


def test_the_answers_file_has_an_end_a_mode_and_whole_lines(tmp_path, monkeypatch, caplog):
    path = tmp_path / "kept.jsonl"
    path.write_text('{"text": "one", "probabilities": {"negative": 0.5, "positive": 0.5}}')  # no newline
    audit = Audit(RECORD, 1.0, path)
    audit.compare("two", "negative", TEACHER)
    lines = path.read_text().splitlines(keepends=True)
    assert [json.loads(line)["text"] for line in lines] == ["one", "two"] and lines[-1].endswith("\n")
    monkeypatch.setattr("kd.cascade.audit.LARGEST_FILE", path.stat().st_size + len(lines[-1]))
    for text in ("six", "ten", "ten", "four"):
        assert not audit.compare(text, "negative", TEACHER)
    assert len(path.read_text().splitlines()) == 3 and audit.unkept == 3
    assert [record.args[0] for record in caplog.records] == [path], "said once"
    new = tmp_path / "new.jsonl"
    written = Audit(RECORD, 1.0, new)
    assert new.stat().st_mode & 0o777 == 0o600
    new.unlink()
    new.mkdir()  # it cannot be written now
    for number in range(20):
        assert not written.compare(f"text {number}", "negative", TEACHER)
    assert written.unkept == 20 and written.agreement_drift, "the audit goes on"
