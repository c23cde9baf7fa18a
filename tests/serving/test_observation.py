"""Logs are lines of JSON without texts; metrics have a bounded number of series."""

import io
import json
import logging

import pytest
from fastapi.testclient import TestClient

from kd.serving.app import create_app
from kd.serving.limits import Limits
from kd.serving.observation import log_to


@pytest.fixture
def log():
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    stream, level = io.StringIO(), root.level
    log_to(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers, root.level = before, level


@pytest.mark.parametrize("log_texts", [False, True])
def test_a_request_is_one_line_and_texts_are_there_only_where_asked(loaded, log, log_texts):
    with TestClient(create_app(loaded, Limits(), log_texts)) as client:
        client.post("/predict", json={"texts": ["a secret film", "plot"]})
        client.post("/predict", json={"texts": ["a secret film", ""]})
        client.get("/secret?film=secret")
    first, second, third = log()
    assert (first["path"], first["status"], first["texts"]) == ("/predict", 200, 2) and first["seconds"] > 0
    assert (second["path"], second["status"]) == ("/predict", 422) and "texts" not in second
    assert (third["path"], third["status"]) == ("other", 404)
    assert ("secret" in json.dumps(log())) == log_texts
    if log_texts:
        assert first["text"] == ["a secret film", "plot"] and set(first["label"]) <= {"LABEL_0", "LABEL_1"}


def test_an_error_of_the_model_is_logged_without_its_message(loaded, log, monkeypatch):
    def fail(self, texts, batch_size):
        raise ValueError(f"cannot read {texts}")

    monkeypatch.setattr(type(loaded), "probabilities", fail)
    with TestClient(create_app(loaded, Limits())) as client:
        answer = client.post("/predict", json={"texts": "a secret film"})
    assert answer.status_code == 500 and "secret" not in answer.text
    error, request = log()
    assert (error["level"], error["error"], request["status"]) == ("error", "ValueError", 500)
    assert "in fail" in error["at"] and "secret" not in json.dumps(log())


def test_metrics_count_requests_texts_and_labels(loaded):
    with TestClient(create_app(loaded, Limits())) as client:
        for texts in ("film", ["plot", "scene"]):
            client.post("/predict", json={"texts": texts})
        for number in range(5):
            client.get(f"/no/such/{number}")
        lines = client.get("/metrics").text.splitlines()
    assert 'kd_requests_total{path="/predict",status="200"} 2.0' in lines
    assert 'kd_requests_total{path="other",status="404"} 5.0' in lines
    assert "kd_batch_texts_sum 3.0" in lines and "kd_waiting_texts 0.0" in lines
    assert sum(float(line.split()[1]) for line in lines if line.startswith("kd_predictions_total")) == 3
    assert not any("/no/such" in line for line in lines)
