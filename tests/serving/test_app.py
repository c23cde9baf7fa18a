"""The interface: answers are the classifier's, each mistake has its status and sentence, no file is reachable."""

import re
import threading
import time

import numpy as np
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from kd.explanation.attribution import Model, occlusion
from kd.serving.app import create_app
from kd.serving.limits import Limits

TIGHT = Limits(max_body=2000, max_texts=3, max_characters=100)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(loaded):
    with TestClient(create_app(loaded, TIGHT)) as client:
        yield client


def test_one_text_and_several_get_the_answers_of_the_classifier(client, loaded):
    texts = ["a very dull film", "the story is warm", "Ünïcode 🎬 \u0000"]
    found = client.post("/predict", json={"texts": texts}).json()["predictions"]
    expected = loaded.probabilities(texts)
    np.testing.assert_allclose([list(each["probabilities"].values()) for each in found], expected, atol=1e-6)
    for each, row in zip(found, expected, strict=True):
        assert list(each["probabilities"]) == loaded.label_names
        assert each["label"] == loaded.label_names[row.argmax()]
    assert client.post("/predict", json={"texts": texts[0]}).json()["predictions"] == found[:1]


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "expected JSON in UTF-8; Invalid JSON: EOF"),
        (b'{"texts": ["a"', 400, "expected JSON in UTF-8"),
        (b'{"texts": "\xff"}', 400, "expected JSON in UTF-8"),
        (b'{"texts": "\\ud800"}', 400, "expected JSON in UTF-8"),
        (b"[" * 1900, 400, "expected JSON in UTF-8"),
        (b"null", 422, "body: Input should be an object"),
        (b'{"texts": 5}', 422, "texts: Input should be a valid array"),
        (b'{"texts": [["a"]]}', 422, "texts.0: Input should be a valid string"),
        (b'{"texts": []}', 422, "texts: List should have at least 1 item"),
        (b'{"texts": ["a", "b", "c", "d"]}', 422, "texts: List should have at most 3 items"),
        (b'{"texts": ["a", " \\n "]}', 422, "texts.1: This text is blank"),
        (b'{"texts": "' + b"a" * 101 + b'"}', 422, "texts.0: String should have at most 100 characters"),
        (b'{"text": "a"}', 422, "texts: Field required"),
        (b'{"texts": "a", "more": 1}', 422, "more: Extra inputs are not permitted"),
        (b'{"texts": "a", "' + b"k" * 1000 + b'": 1}', 422, "k" * 100 + ": Extra inputs are not permitted"),
        (b" " * 2001, 413, "expected a body of at most 2000 bytes, found more"),
    ],
)
def test_a_mistake_gets_one_sentence(client, body, status, sentence):
    answer = client.post("/predict", content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith(sentence) and len(answer.text) < 300


def test_another_type_is_refused_because_any_page_could_send_it(client):
    answer = client.post("/predict", content=b'{"texts": "a"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415 and "found text/plain" in answer.json()["detail"]
    charset = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/predict", content=b'{"texts": "a"}', headers=charset).status_code == 200


def test_a_full_queue_gives_429_and_a_time(held):
    with TestClient(create_app(held, Limits(max_texts=4, max_waiting=4, batch_wait=0))) as client:
        answers = []
        first = threading.Thread(target=lambda: answers.append(client.post("/predict", json={"texts": ["a"] * 3})))
        first.start()
        end = time.monotonic() + 20
        while "kd_waiting_texts 3.0" not in client.get("/metrics").text and time.monotonic() < end:
            time.sleep(0.01)
        refused = client.post("/predict", json={"texts": ["b", "c"]})
        assert client.get("/ready").json() == {"status": "ready"} and client.get("/health").status_code == 200
        held.may.set()
        first.join()
        assert answers[0].status_code == 200 and len(answers[0].json()["predictions"]) == 3
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1
        assert client.post("/predict", json={"texts": ["b", "c"]}).status_code == 200


def test_an_explanation_is_that_of_leaving_words_out(loaded):
    with TestClient(create_app(loaded, Limits(max_characters=100, max_texts=6))) as client:
        found = client.post("/explain", json={"text": "a very dull film ."}).json()
        assert [each["word"] for each in found["words"]] == ["a", "very", "dull", "film", "."]
        model = Model("student", loaded, loaded.label_names)
        label = loaded.label_names.index(found["label"])
        (expected,) = occlusion(model, ["a very dull film ."], np.array([label]))
        np.testing.assert_allclose([each["weight"] for each in found["words"]], expected.values, atol=1e-3)
        longer = client.post("/explain", json={"text": "a very dull film . a b"}).json()
        assert (len(longer["words"]), found["left_out"], longer["left_out"]) == (5, 0, 2)
        for body, status, sentence in (
            ({"text": " "}, 422, "text: This text is blank; send {"),
            ({"text": "a" * 101}, 422, "text: String should have at most 100 characters"),
            ({"texts": ["a"]}, 422, "text: Field required"),
        ):
            answer = client.post("/explain", json=body)
            assert answer.status_code == status and answer.json()["detail"].startswith(sentence), answer.text


def test_an_explanation_for_which_there_is_no_room_is_refused(loaded):
    with TestClient(create_app(loaded, Limits(max_texts=4, max_waiting=4))) as client:
        assert client.post("/explain", json={"text": "a dull film"}).status_code == 200
        client.app.state.service.batcher.waiting += 1  # a text of another request
        assert client.post("/explain", json={"text": "a dull film"}).status_code == 429


@pytest.mark.parametrize("place", ["/", "/docs"])
def test_the_page_needs_nothing_from_elsewhere(client, place):
    answer = client.get(place)
    assert answer.status_code == 200 and "default-src 'none'" in answer.text
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:,|openapi\.json)|https?:|@import|url\(", answer.text)


@pytest.mark.parametrize(
    "place", ["/page.html", "/..%2f..%2fetc/passwd", "/%2e%2e/page.html", "//etc/passwd", "/static/../app.py", "/redoc"]
)
def test_no_file_is_reachable(client, place):
    answer = client.get(place)
    assert answer.status_code == 404 and answer.json() == {"detail": "Not Found"}


def test_the_schema_states_the_limits(client):
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/predict", "/explain", "/health", "/ready", "/metrics"}
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    one, several = body["properties"]["texts"]["anyOf"]
    assert one["maxLength"] == several["items"]["maxLength"] == 100 and several["maxItems"] == 3


def test_what_is_not_ready_says_so(client):
    assert client.get("/ready").status_code == 200
    client.portal.call(client.app.state.service.batcher.close)
    assert client.get("/ready").status_code == 503 and client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        *((f"/{path}", "GET", GenerationMode.POSITIVE) for path in ("health", "ready", "metrics")),
        *(("/predict", "POST", mode) for mode in GenerationMode),
        ("/explain", "POST", GenerationMode.POSITIVE),
    ],
)
def test_answers_fit_the_own_schema(loaded, path, method, mode):
    """Schemathesis makes requests that fit the schema, and others that do not."""
    operation = schemathesis.openapi.from_asgi("/openapi.json", create_app(loaded, TIGHT))[path][method]

    @settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case):
        case.call_and_validate()

    ask()
