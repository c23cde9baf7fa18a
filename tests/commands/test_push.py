"""`kd push` against a small hub on this machine: what is sent, and that nothing is sent unasked."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from kd.commands import push
from kd.export import folder
from kd.report.model_card import base_models
from kd.run.directory import RunDirectory
from tests.conftest import run_kd

READS = ("/api/whoami-v2", "/api/models/me/student")


class Hub(ThreadingHTTPServer):
    """Speaks the part of the hub's interface that an upload uses. Weights go the way of large files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.asked, self.files, self.created, self.private, self.deleted = [], {}, {}, None, []


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def received(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def refused(self) -> bool:
        self.server.asked.append(self.path)
        if wrong := self.headers["Authorization"] != "Bearer hf_right":
            self.answer({"error": "Invalid user token."}, 401)
        return wrong

    def do_GET(self):
        if not self.refused():
            me = {"name": "me", "type": "user"}
            repository = {"id": "me/student", "private": self.server.private, "tags": []}
            repository["siblings"] = [{"rfilename": name} for name in self.server.files]
            self.answer(me if self.path == "/api/whoami-v2" else repository)

    def do_PUT(self):
        self.server.files["model.safetensors"] = self.received()
        self.answer({})

    def do_POST(self):
        body = self.received()
        if self.refused():
            return
        hub, last = self.server, self.path.rsplit("/", 2)[1:]
        if self.path == "/api/repos/create":
            hub.created = json.loads(body)
            if hub.private is None:  # else it is there already
                hub.private = hub.created["visibility"] == "private"
            self.answer({"url": f"{hub.address}/me/student", "id": "me/student"})
        elif last[0] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name == "model.safetensors" else "regular" for name in names}
            self.answer(
                {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]}
            )
        elif last == ["objects", "batch"]:
            (file,) = json.loads(body)["objects"]
            self.answer({"objects": [{**file, "actions": {"upload": {"href": f"{hub.address}/large"}}}]})
        elif last[0] == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            for line in lines:
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    hub.deleted.append(line["value"]["path"])
            self.answer({"success": True, "commitOid": "c" * 40, "commitUrl": f"{hub.address}/me/student/commit/c"})
        else:
            self.answer({"errors": [], "warnings": []})


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # this hub is on this machine
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield hub
    hub.shutdown()


def test_the_model_its_card_and_an_export_are_uploaded_in_private(hub, pair, capsys):
    run = RunDirectory(pair / "dan")
    export = run.path / "exports" / "onnx"
    export.mkdir(parents=True)
    for name in ("model.onnx", "tokenizer.json"):
        (export / name).write_text(f"the content of {name}")
    about = {"kind": "onnx", "labels": ["negative", "positive"], "max_length": 24, "padding": 0, "text": "text"}
    folder.write(export, about)
    (run.model / "link").symlink_to("/etc/passwd")
    assert run_kd("push", run.path, "student", "--yes", "--exports", "onnx") == 0
    printed = capsys.readouterr().out
    assert "uploaded: " in printed and f"{hub.address}/student, which is private" in printed
    assert hub.created["visibility"] == "private" and hub.created["name"] == "student"
    exported = {f"exports/onnx/{path.name}" for path in export.iterdir()}
    assert {"README.md", "model.safetensors", "tokenizer.json", "config.json", *exported} <= set(hub.files)
    assert "link" not in hub.files
    for name, content in hub.files.items():
        assert content == ((run.path if name.startswith("exports/") else run.model) / name).read_bytes()
        assert f"kB  {name}" in printed
    assert run_kd("push", run.path, "student", "--yes") == 0
    assert sorted(hub.deleted) == sorted(exported), "they are exports of an earlier student"
    assert "deleted     exports/onnx/model.onnx (of an earlier push)" in capsys.readouterr().out


def test_nothing_is_sent_unasked(hub, pair, capsys, monkeypatch):
    assert run_kd("push", pair / "dan", "me/student") == 2
    assert "nothing is uploaded before you have agreed; add --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert run_kd("push", pair / "dan", "me/student") == 0
    assert "nothing was uploaded" in capsys.readouterr().out

    def ended(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    assert run_kd("push", pair / "dan", "me/student") == 0
    assert "nothing was uploaded" in capsys.readouterr().out
    assert not hub.created and not hub.files and all(path.startswith(READS) for path in hub.asked)
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert run_kd("push", pair / "dan", "me/student", "--public") == 0
    assert hub.created["visibility"] == "public" and "README.md" in hub.files
    assert "everyone can read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options", "environment", "sentence"),
    [
        ("me/student", [], {"HF_TOKEN": "hf_wrong"}, "with 401 (Invalid user token. "),
        ("me/student", [], {"HF_ENDPOINT": "http://127.0.0.1:1"}, "check the network and HF_ENDPOINT"),
        ("a/b/c", [], {}, "expected a name such as USER/NAME, got 'a/b/c'"),
        ("me/student", ["--exports", "int8"], {}, "--exports: expected an export in"),
        ("me/student", ["--exports", "../model"], {}, "--exports: expected an export in"),
    ],
)
def test_mistakes_are_one_sentence(hub, pair, capsys, monkeypatch, name, options, environment, sentence):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert run_kd("push", pair / "dan", name, "--yes", *options) == 2
    printed = capsys.readouterr().err.splitlines()
    assert sentence in printed[-1] and printed[-1].startswith("kd push: "), printed
    assert not hub.files


def test_the_card_names_what_the_model_is_based_on():
    teachers = {"a": {"name_or_path": "asset:all-minilm-l6-v2"}, "b": {"name_or_path": "/home/me/teacher"}}
    settings = {"teacher": {"members": teachers}, "student": {"name_or_path": "org/small@main"}}
    found = base_models(settings, {"hub": {"org/small@main": "c" * 40}})
    assert found == ["sentence-transformers/all-MiniLM-L6-v2", "org/small"]
    assert base_models({"teacher": None, "student": {"hidden_size": 8}}, {}) == []


def test_a_damaged_export_is_not_uploaded(hub, pair, capsys):
    export = pair / "dan" / "exports" / "onnx"
    export.mkdir(parents=True)
    (export / folder.ABOUT).write_text("{}")
    assert run_kd("push", pair / "dan", "me/student", "--yes", "--exports", "onnx") == 2
    assert "is damaged" in capsys.readouterr().err and not hub.asked


def test_a_repository_that_is_public_already_gets_nothing_in_private(hub, pair, capsys):
    hub.private = False
    assert run_kd("push", pair / "dan", "me/student", "--yes") == 2
    assert "'me/student' is public already; add --public" in capsys.readouterr().err and not hub.files


def test_a_repository_that_is_private_already_is_not_called_public(hub, pair, capsys):
    hub.private = True
    assert run_kd("push", pair / "dan", "me/student", "--yes", "--public") == 2
    assert "'me/student' is private already; leave out --public" in capsys.readouterr().err and not hub.files


def test_without_a_token_and_without_a_finished_run(hub, pair, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert run_kd("push", pair / "dan", "me/student", "--yes") == 2
    assert "expected a token of the hub, found none" in capsys.readouterr().err
    RunDirectory(pair / "dan").set_status("running")
    assert run_kd("push", pair / "dan", "me/student", "--yes") == 2
    assert "is running" in capsys.readouterr().err and not hub.asked
    (pair / "mlp" / "model" / "README.md").unlink()
    card = push.files_of(RunDirectory.finished(pair / "mlp", push.READ), None)["README.md"]
    assert card.startswith(b"---\nlibrary_name: transformers"), "an early kd wrote no card, so it is made here"
