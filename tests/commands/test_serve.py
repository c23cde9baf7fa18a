"""`kd serve`: its options, and what is refused before anything is served. tests/serving/ tests the server."""

import socket
import sys
import time
from argparse import Namespace

import pytest
from fastapi.testclient import TestClient

from kd.commands.serve import cascade
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher
from kd.serving.app import create_app
from kd.serving.limits import Limits
from tests.conftest import make_reviews, run_kd


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--max-texts", "0"], "--max-texts: expected a whole number of at least 1, got 0"),
        (["--read-seconds", "nan"], "--read-seconds: expected a number"),
        (["--batch-wait", "-1"], "--batch-wait: expected a number of at least 0, got -1.0"),
        (["--max-waiting", "10"], "expected --max-waiting to be at least --max-texts, got 10 and 256"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1 port 8000: Cannot assign requested address"),
        (["--port", "-1"], "cannot listen on 127.0.0.1 port -1: "),
        (["--port", "0"], "expected a run, a Hugging Face folder or an export"),
        (["--port", "0", "--cascade"], "expected the directory of a kd run"),
        (["--fallback", "student"], "--fallback: expected --cascade beside it"),
        (["--audit", "0.02"], "--audit: expected --cascade beside it"),
        (["--cascade", "--audit-texts", "a.jsonl"], "--audit-texts: expected --audit beside it"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path, capsys, options, sentence):
    assert run_kd("serve", tmp_path / "nothing", *options) == 2
    printed = capsys.readouterr().err.splitlines()
    assert printed[-1].startswith(f"kd serve: {sentence}"), printed


def test_a_port_in_use_is_said_before_the_model_is_loaded(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run_kd("serve", tmp_path / "nothing", "--port", port) == 2
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in capsys.readouterr().err


def test_the_cascade_of_a_run_is_served_and_audited(pair, tmp_path, capsys):
    teacher = own_teacher(RunDirectory(pair / "dan"))
    assert run_kd("cascade", pair / "dan", "--teacher", teacher, "--agreement", "0.7", "--confidence", "0.9") == 0
    kept = tmp_path / "kept.jsonl"
    options = Namespace(model=pair / "dan", fallback=None, audit=1.0, audit_texts=kept)
    loaded, auditor = cascade(options)
    with TestClient(create_app(loaded, Limits(), auditor=auditor)) as client:
        texts = [text for text, _ in make_reviews(50, seed=5)]
        found = client.post("/predict", json={"texts": texts}).json()["predictions"]
        end = time.monotonic() + 20
        while (report := client.get("/audit").json())["audited"] < 50 and time.monotonic() < end:
            time.sleep(0.05)
    assert {each["answered_by"] for each in found} <= {"student", "teacher"}
    assert report["audited"] == 50 and report["floor"] == 0.7 and report["differing"] <= 15
    assert len(kept.read_text().splitlines()) == report["differing"]
    for wrong, sentence in (
        ({"audit": 1.5}, "expected a share of audited texts above 0"),
        ({"audit_texts": tmp_path / "kept.csv"}, r"name ends with \.jsonl"),
    ):
        with pytest.raises(KDError, match=sentence):
            cascade(Namespace(**(vars(options) | wrong)))
    kept.write_text("no JSON\n")
    with pytest.raises(KDError, match=r"kept\.jsonl"):
        cascade(options)


def test_the_help_names_every_limit_with_its_default(capsys):
    with pytest.raises(SystemExit):
        run_kd("serve", "--help")
    printed = " ".join(capsys.readouterr().out.split())
    for name in vars(Limits()):
        assert f"--{name.replace('_', '-')} N" in printed and f"(default: {getattr(Limits, name)})" in printed


def test_a_missing_package_is_named(tmp_path, capsys, monkeypatch):
    for name in ("kd.serving.server", "kd.serving.app"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run_kd("serve", tmp_path) == 2
    assert "kd serve needs the package uvicorn; pip install 'kd[serve]'" in capsys.readouterr().err
