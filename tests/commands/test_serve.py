"""`kd serve`: its options, and what is refused before anything is served. tests/serving/ tests the server."""

import socket
import sys

import pytest

from kd.serving.limits import Limits
from tests.conftest import run_kd


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
