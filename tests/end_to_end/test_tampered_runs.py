"""Finished runs whose files were changed: each command works, or refuses the run in one sentence."""

import io
import json
import os
import random
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from kd.errors import KDError
from kd.report.runs import find_runs
from kd.report.study import studies
from kd.report.terminal import show
from kd.run.directory import RunDirectory
from kd.storage.records import SEAL
from tests.conftest import run_kd

FILES = ("config.yaml", "environment.json", "metrics.json", "status.json")
ODD = (
    *(None, True, False, "", "no", "../x", "/etc/passwd", "${oc.env:HOME}", 0, -1, 2**40, 10**400, 0.5, 1e308),
    *(float("nan"), float("inf"), [], {}, [[]], [None], {"_target_": "os.system"}, {"a": {"b": 1}}, "\0", "a\nb", "é"),
)


@pytest.fixture(scope="module")
def run(common_options, fine_tuned, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("finished")
    shutil.copytree(fine_tuned, place / "outputs/teachers")
    options = ["student=dan", "trainer.max_epochs=1", f"outputs={place / 'outputs'}", f"hydra.run.dir={place / 'run'}"]
    assert run_kd("train", *common_options, *options, "method=distillation") == 0
    return place / "run"


def places(node, way=()):
    """Every way to a value in nested containers."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield (*way, key)
        yield from places(value, (*way, key))


def changed(content, seed: int):
    """Change, remove or add one value somewhere."""
    draw = random.Random(seed)
    *way, key = draw.choice(list(places(content)))
    node = content
    for step in way:
        node = node[step]
    action = draw.choice(("replace", "replace", "replace", "remove", "add"))
    if action == "remove":
        del node[key]
    elif action == "add" and isinstance(node, dict):
        node[draw.choice(("_args_", "extra", "${x}", "_target_"))] = draw.choice(ODD)
    else:
        node[key] = draw.choice(ODD)
    return content


def tampered(run: Path, place: Path, name: str, seed: int, checksums: bool) -> Path:
    """Copy a run and change one of its files; without checksums, as a stranger would who knows of them."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(run, place)
    status = json.loads((place / "status.json").read_text())
    if not checksums:
        del status["products"], status[SEAL], status["format"]
        (place / "status.json").write_text(json.dumps(status))
    file = place / name
    is_yaml = file.suffix == ".yaml"
    content = changed(yaml.safe_load(file.read_text()) if is_yaml else json.loads(file.read_text()), seed)
    file.write_text(yaml.safe_dump(content) if is_yaml else json.dumps(content))
    return place


def answers(command: list, capsys) -> str:
    """Run a command; return "works" or the sentence that it printed. A traceback fails the test."""
    code = run_kd(*command)
    said = capsys.readouterr()
    assert code in (0, 2), (command, code, said.err)
    assert "Traceback" not in said.err or "Logging error" in said.err  # a log of an earlier test
    return "works" if code == 0 else said.err.strip().splitlines()[-1]


SLOW = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize(("command", "examples"), [("predict", 60), ("evaluate", 60), ("report", 8)])
def test_any_change_of_a_value_is_answered(run, tmp_path, capsys, command, examples):
    said = Counter()
    words = {"predict": ["a funny film"], "evaluate": ["--split", "validation"], "report": ["--out", tmp_path / "out"]}

    @settings(SLOW, max_examples=examples)
    @given(st.sampled_from(FILES), st.integers(0, 2**32))
    def check(name, seed):
        place = tampered(run, tmp_path / "run", name, seed, checksums=False)
        answer = answers(["kd", command, place, *words[command]][1:], capsys)
        said["works" if answer == "works" else "refused"] += 1

    check()
    assert min(said["refused"], said["works"]) > examples // 10, said


@settings(SLOW, max_examples=150)
@given(name=st.sampled_from(FILES), seed=st.integers(0, 2**32))
def test_any_change_of_a_value_is_shown_or_left_out_of_the_tables(run, tmp_path, name, seed):
    place = tampered(run, tmp_path / "run", name, seed, checksums=False)
    with suppress(KDError):
        for study in studies(find_runs([place]).runs):
            show(study, Console(file=io.StringIO()))


@settings(SLOW, max_examples=40)
@given(name=st.sampled_from(FILES[:3]), seed=st.integers(0, 2**32))
def test_a_changed_product_is_damaged(run, tmp_path_factory, name, seed):
    place = tampered(run, tmp_path_factory.getbasetemp() / "one" / "run", name, seed, checksums=True)
    if (place / name).read_bytes() != (run / name).read_bytes():
        assert not RunDirectory(place).is_done
        assert run_kd("predict", place, "a film") == (2 if name == "config.yaml" else 0)


@pytest.mark.parametrize("product", ["model/model.safetensors", "model/config.json", "model/tokenizer.json"])
def test_one_changed_byte_of_a_model_is_noticed(run, tmp_path, capsys, product):
    place = Path(shutil.copytree(run, tmp_path / "run"))
    for seed in range(5):
        content = bytearray((run / product).read_bytes())
        content[random.Random(seed).randrange(len(content))] ^= 1
        (place / product).write_bytes(content)
        for command in (["predict", place, "a film"], ["evaluate", place], ["reproduce", place]):
            assert f"is damaged: {product} does not match its checksum" in answers(command, capsys)
    (place / product).unlink()
    assert f"{product} is missing" in answers(["predict", place, "a film"], capsys)


def test_a_changed_partner_is_noticed(run, tmp_path, capsys, monkeypatch):
    place = Path(shutil.copytree(run, tmp_path / "run"))
    partner = Path(shutil.copytree(run / "model", place / "partners" / "friend"))
    RunDirectory(place).set_status("done", identity=RunDirectory(run).status()["identity"])
    assert answers(["predict", partner, "a film"], capsys) == "works" and RunDirectory(place).is_done
    for product in ("model.safetensors", "config.json", "tokenizer.json"):
        content = (partner / product).read_bytes()
        (partner / product).write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        said = f"partners/friend/{product} does not match its checksum"
        assert said in answers(["predict", partner, "a film"], capsys) and not RunDirectory(place).is_done
        assert said in answers(["reproduce", place], capsys)
        monkeypatch.chdir(partner)
        assert said in answers(["predict", ".", "a film"], capsys)
        (partner / product).write_bytes(content)
    shutil.rmtree(partner)
    assert "partners/friend/config.json is missing" in answers(["reproduce", place], capsys)


def test_a_foreign_file_in_the_model_folder_is_noticed(run, tmp_path, capsys):
    place = Path(shutil.copytree(run, tmp_path / "run"))
    (place / "model" / "README.md").write_text("my own words")
    assert answers(["predict", place, "a film"], capsys) == "works"
    (place / "model" / "added_tokens.json").write_text("{}")
    assert "added_tokens.json was not there when the run was done" in answers(["predict", place, "a film"], capsys)


def test_a_run_without_checksums_works_with_one_warning(run, tmp_path, capsys, caplog):
    place = Path(shutil.copytree(run, tmp_path / "run"))
    status = json.loads((place / "status.json").read_text())
    (place / "status.json").write_text(json.dumps({"state": "done", "identity": status["identity"]}))
    assert answers(["predict", place, "a film"], capsys) == "works"
    assert [record.message for record in caplog.records if "has no checksums" in record.message]
    assert run_kd("report", place) == 0
    assert capsys.readouterr().err.count("without checksums") == 1


def test_a_run_of_a_newer_kd_is_named(run, tmp_path, capsys):
    place = Path(shutil.copytree(run, tmp_path / "run"))
    (place / "status.json").write_text(json.dumps({"format": 99, "state": "done", "identity": "x"}))
    for command in ("predict", "report"):
        assert run_kd(command, place) == 2
        assert "is of a newer kd: expected format 2 or lower, found 99; update kd" in capsys.readouterr().err


def strangers(run: Path, place: Path, **changes) -> Path:
    """Copy a run as a stranger would send it: without checksums, with parts of its configuration replaced."""
    shutil.copytree(run.parent, place)
    copy = place / run.name
    (copy / "status.json").write_text(json.dumps({"state": "done"}))
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["outputs"] = str(place / "outputs")
    (copy / "config.yaml").write_text(yaml.safe_dump({**config, **changes}))
    return copy


ELSEWHERE = "/tmp/kd-elsewhere"


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "_args_": [ELSEWHERE, "x", "val/loss"]},
        {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": ELSEWHERE},
        {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "../../elsewhere"},
        {"_target_": "lightning.pytorch.callbacks.SpikeDetection", "exclude_batches_path": ELSEWHERE},
        {"_target_": "lightning.pytorch.callbacks.OnExceptionCheckpoint", "dirpath": f"file:{ELSEWHERE}"},
        {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "filename": "~/x"},
        {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "filename": "{a/b/c/d}/../../../../pwned"},
        {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": f"local://{ELSEWHERE}"},
        {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": f"simplecache::file://{ELSEWHERE}"},
    ],
)
def test_a_strangers_callback_writes_nowhere_else(run, tmp_path, capsys, node):
    copy = strangers(run, tmp_path / "theirs", callbacks={"theirs": node})
    said = answers(["reproduce", copy], capsys)
    assert "_args_: expected arguments by name" in said or "leads out of it" in said
    assert not Path(ELSEWHERE).exists() and not (tmp_path / "elsewhere").exists()


def test_a_profiler_writes_into_the_run(run, tmp_path, monkeypatch):
    node = {"_target_": "lightning.pytorch.profilers.SimpleProfiler", "dirpath": "evil", "filename": "times"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    copy = strangers(run, tmp_path / "theirs", trainer=config["trainer"] | {"profiler": node})
    monkeypatch.chdir(tmp_path)
    assert run_kd("reproduce", copy, "--into", tmp_path / "again", "--outputs", tmp_path / "theirs/outputs") == 0
    assert not (tmp_path / "evil").exists() and list((tmp_path / "again" / "evil").iterdir())


def test_what_is_no_ordinary_file_is_left_out(run, tmp_path, capsys):
    """A named pipe would wait for ever, and a device has no end."""
    strangers(run, tmp_path / "all" / "good")
    pipe, device, half = (strangers(run, tmp_path / "all" / name) for name in ("pipe", "device", "half"))
    (pipe / "status.json").unlink()
    os.mkfifo(pipe / "status.json")
    (device / "metrics.json").unlink()
    (device / "metrics.json").symlink_to("/dev/zero")
    (half / "status.json").write_text('{"state": "failed", "reason": "\\ud800"}')
    assert run_kd("report", tmp_path / "all") == 0
    assert capsys.readouterr().err.count("found none that can be read") == 3


def test_a_damaged_run_is_trained_again_from_scratch(run, tmp_path, common_options, capsys):
    """Its checkpoints may be those of another run, so that it must not resume from them."""
    copy = strangers(run, tmp_path / "theirs", outputs=str(run.parent / "outputs"))
    RunDirectory(copy).set_status("done", identity=RunDirectory(run).status()["identity"])
    weights = (copy / "model" / "model.safetensors").read_bytes()
    (copy / "model" / "model.safetensors").write_bytes(weights[:5000])
    shutil.rmtree(copy / "checkpoints")
    (copy / "checkpoints").mkdir()
    (copy / "checkpoints" / "best.ckpt").write_bytes(b"of another run")
    options = ["student=dan", "trainer.max_epochs=1", "method=distillation", f"hydra.run.dir={copy}"]
    assert run_kd("train", *common_options, *options, f"outputs={run.parent / 'outputs'}") == 0
    assert "is damaged: " in capsys.readouterr().out
    assert (copy / "model" / "model.safetensors").read_bytes() == weights
    assert (copy / "previous" / "1" / "checkpoints" / "best.ckpt").read_bytes() == b"of another run"


def test_a_run_of_a_newer_kd_is_not_trained_over(run, tmp_path, common_options, capsys):
    copy = strangers(run, tmp_path / "theirs")
    (copy / "status.json").write_text(json.dumps({"format": 99, "state": "done", "identity": "x"}))
    said = answers(["train", *common_options, "method=supervised", f"hydra.run.dir={copy}"], capsys)
    assert "is of a newer kd" in said and not (copy / "previous").exists()


@pytest.mark.parametrize(
    ("link", "command"),
    [
        ("run/test_reads.jsonl", ["evaluate", "run", "--split", "test"]),
        ("run/report", ["report", "run"]),
        ("outputs/reproduced", ["reproduce", "run"]),
        ("outputs/teacher_cache", ["reproduce", "run"]),
    ],
)
def test_links_out_of_a_strangers_folder_are_not_written_through(run, tmp_path, capsys, monkeypatch, link, command):
    strangers(run, tmp_path / "theirs")
    outside = tmp_path / "mine"
    outside.mkdir()
    (outside / "file").write_text("mine")
    place = tmp_path / "theirs" / link
    shutil.rmtree(place, ignore_errors=True)
    place.symlink_to(outside / "file" if link.endswith("jsonl") else outside)
    monkeypatch.chdir(tmp_path / "theirs")
    said = answers(command, capsys)
    assert "leads out of it" in said or "cannot be written" in said
    assert [file.name for file in outside.iterdir()] == ["file"] and (outside / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["evaluate", "predict", "reproduce", "report"])
def test_a_strangers_configuration_is_not_resolved(run, tmp_path, capsys, monkeypatch, command):
    monkeypatch.setenv("SECRET", "hunter2")
    copy = strangers(run, tmp_path / "theirs", seed="${oc.env:SECRET}")
    assert run_kd(command, copy, *(["a film"] if command == "predict" else [])) == 2
    said = capsys.readouterr()
    assert "hunter2" not in said.out + said.err
    assert "found the interpolation '${oc.env:SECRET}'" in said.err


@pytest.mark.parametrize(("levels", "said"), [(50_000, "more than 50 levels"), (0, "has the alias")])
def test_a_configuration_that_would_crash_the_parser_is_left_out_of_the_report(run, tmp_path, capsys, levels, said):
    bad = strangers(run, tmp_path / "all" / "bad")
    strangers(run, tmp_path / "all" / "good")
    laughs = "a: &a [x, x]\nb: &b [*a, *a]\ndata: [*b, *b]\n"
    (bad / "config.yaml").write_text(f"data: {'[' * levels}" if levels else laughs)
    assert run_kd("report", tmp_path / "all") == 0
    printed = capsys.readouterr()
    assert said in printed.err and "distillation" in printed.out
