"""The audit of a served cascade: it comes after the answers, it is bounded, and a teacher that fails stops nothing."""

import logging
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from kd.cascade.audit import CHECKED, Audit
from kd.cascade.cascade import Cascade
from kd.cascade.threshold import confidence_of
from kd.classifier import load
from kd.serving import auditing
from kd.serving.app import create_app
from kd.serving.limits import Limits
from kd.teacher.answers_file import read_answers
from tests.cascade.test_audit import RECORD
from tests.conftest import make_reviews, make_teacher

TEXTS = [text for text, _ in make_reviews(60, seed=3)]


@pytest.fixture(scope="module")
def cascade(loaded, tmp_path_factory) -> Cascade:
    """A cascade whose student answers half of the texts; another random BERT is the teacher, with both labels."""
    teacher = load(make_teacher(tmp_path_factory.mktemp("teacher"), seed=1))
    with torch.no_grad():
        teacher.model.classifier.weight *= 50  # else one text alone and a batch round to different labels
        teacher.model.classifier.bias[1] -= float(np.median(np.diff(teacher.logits(TEXTS))))
    return Cascade([loaded], teacher, [1.0], float(np.median(confidence_of(loaded.logits(TEXTS)))))


def served(cascade, share=1.0, answers_file=None, ask=None) -> TestClient:
    audit = Audit(RECORD, share, answers_file, seed=0)
    own = auditing.Auditor(audit, cascade.stages, ask or cascade.for_another_thread().ask_teacher)
    return TestClient(create_app(cascade, Limits(), auditor=own))


def reported(client, **expected) -> dict:
    """Return the report as soon as it has the expected numbers."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = client.get("/audit").json()
        if expected.items() <= found.items():
            return found
        time.sleep(0.01)
    raise AssertionError(found)


def test_answers_say_who_gave_them_and_the_audit_compares_them_with_the_teacher(cascade, tmp_path):
    expected, by = cascade.answers(TEXTS)
    teacher = [cascade.label_names[row.argmax()] for row in cascade.stage_logits(1, TEXTS)]
    labels = [cascade.label_names[number] for number in expected.argmax(axis=1)]
    differing = sum(one != other for one, other in zip(labels, teacher, strict=True))
    assert 0 < differing < 60 and set(by) == {"student", "teacher"}
    with served(cascade, answers_file=tmp_path / "other.jsonl") as client:
        assert client.get("/audit").json()["agreement"] is None
        found = client.post("/predict", json={"texts": TEXTS}).json()["predictions"]
        report = reported(client, audited=60)
        metrics = client.get("/metrics").text
    assert [(each["label"], each["answered_by"]) for each in found] == list(zip(labels, by, strict=True))
    assert (
        report["differing"] == differing
        and report["texts"] == 60
        and (report["kind"], report["floor"]) == ("agreement", 0.98)
    )
    agreement = report["agreement"]
    assert agreement["value"] == (60 - differing) / 60 and agreement["low"] < agreement["value"] < agreement["high"]
    assert f'kd_agreement{{bound="value"}} {agreement["value"]}' in metrics
    assert 'kd_audit_texts_total{result="audited"} 60.0' in metrics
    kept = read_answers(tmp_path / "other.jsonl", cascade.label_names, "text", "label", "utf-8", 1.0, 1e-4)
    wrong = {text for text, one, other in zip(TEXTS, labels, teacher, strict=True) if one != other}
    assert len(kept.keys) == len(wrong)
    for text, answer in zip(TEXTS, teacher, strict=True):
        if text in wrong:
            assert cascade.label_names[kept.of([text]).argmax()] == answer


def test_alarms_are_reported_counted_and_logged_once(cascade, caplog):
    caplog.set_level(logging.WARNING)
    with served(cascade, ask=lambda text: {"LABEL_0": 0.5, "other": 0.5001}) as client:
        for start in range(0, CHECKED, 200):
            client.post("/predict", json={"texts": [TEXTS[0]] * min(200, CHECKED - start)})
        end = time.monotonic() + 20
        while len(client.get("/audit").json()["alarms"]) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        report, metrics = client.get("/audit").json(), client.get("/metrics").text
    assert "has fallen below 98.0%" in report["alarms"][0] and "differ from those" in report["alarms"][1]
    assert 'kd_alarm{about="agreement"} 1.0' in metrics and 'kd_alarm{about="inputs"} 1.0' in metrics
    assert sorted(record.fields["about"] for record in caplog.records if record.msg == "alarm") == [
        "agreement",
        "inputs",
    ]


def test_a_slow_teacher_does_not_hold_up_the_answers_and_its_queue_has_an_end(cascade, monkeypatch):
    monkeypatch.setattr(auditing, "WAITING", 5)
    may, sure = threading.Event(), replace(cascade, threshold=0.5)  # the student answers everything

    def ask(text):
        assert may.wait(20)
        return cascade.ask_teacher(text)

    with served(sure, ask=ask) as client:
        assert client.post("/predict", json={"texts": TEXTS[:1]}).status_code == 200
        reported(client, texts=1, waiting=0)  # the teacher has it
        assert client.post("/predict", json={"texts": TEXTS[1:21]}).status_code == 200
        reported(client, texts=21, audited=0, waiting=5, left_out=15)
        may.set()
        reported(client, audited=6)
        client.post("/predict", json={"texts": TEXTS[:5]})  # waits when the server stops


@pytest.mark.parametrize("fallback", [False, True])
def test_a_teacher_that_fails(cascade, fallback, caplog):
    broken = replace(cascade, teacher=None, fallback=fallback)
    sure, unsure = (TEXTS[int(row)] for row in np.argsort(-confidence_of(cascade.stage_logits(0, TEXTS)))[[0, -1]])
    with served(broken, ask=broken.ask_teacher) as client:
        answers = [client.post("/predict", json={"texts": text}) for text in (sure, unsure)]
        report = reported(client, failed=1 + fallback, audited=0)
        assert report["alarms"] == []
        again = [client.post("/predict", json={"texts": text}) for text in (sure, unsure, sure, unsure)]
        later = reported(client, failed=3 + 3 * fallback, audited=0)
        metrics = client.get("/metrics").text
    assert answers[0].json()["predictions"][0]["answered_by"] == "student"
    if fallback:
        assert answers[1].json()["predictions"][0]["answered_by"] == "fallback"
    else:
        for answer in (answers[1], again[1], again[3]):
            assert answer.status_code == 503 and answer.headers["retry-after"] == "10"
            assert answer.json() == {"detail": "the teacher of this cascade cannot answer now; send it again in 10 s"}
    said = [record.getMessage() for record in caplog.records if record.name == "kd.serving"]
    expected = {"the teacher failed with an audited text": 1, "alarm": 1, "the teacher failed": int(not fallback)}
    assert {event: said.count(event) for event in expected} == expected
    assert report["agreement"] is None and 'kd_alarm{about="teacher"} 1.0' in metrics
    assert later["alarms"] == ["the teacher fails, so that nothing is audited; the log says where"]


def test_the_alarm_about_the_teacher_ends_when_it_answers(cascade, caplog):
    works, sure = threading.Event(), replace(cascade, threshold=0.5)

    def ask(text):
        if not works.is_set():
            raise OSError("the disk of the teacher is gone")
        return cascade.ask_teacher(text)

    with served(sure, ask=ask) as client:
        client.post("/predict", json={"texts": TEXTS[:5]})
        assert reported(client, failed=5)["alarms"]
        works.set()
        client.post("/predict", json={"texts": TEXTS[5:6]})
        assert reported(client, audited=1)["alarms"] == []
    said = [
        (record.msg, record.fields["about"]) for record in caplog.records if "about" in getattr(record, "fields", {})
    ]
    assert [event for event in said if event[1] == "teacher"] == [("alarm", "teacher"), ("end of an alarm", "teacher")]


def test_without_an_audit_there_is_none(cascade):
    with TestClient(create_app(cascade, Limits())) as client:
        assert client.get("/audit").status_code == 404
        assert client.post("/predict", json={"texts": TEXTS[0]}).json()["predictions"][0]["answered_by"]
