"""`kd reproduce`: a run trained again from its own directory, and what is said where the two are not the same."""

import json
import shutil

import pytest
import yaml

from kd.run.directory import RunDirectory
from kd.run.environment import KERNELS
from tests.end_to_end.test_methods import data_options, run_kd, teachers

__all__ = ["data_options", "teachers"]  # fixtures


@pytest.fixture(scope="module")
def run(data_options, teachers, tmp_path_factory):
    place = tmp_path_factory.mktemp("reproduce")
    options = ["student=bilstm", "student.hidden_size=12", f"outputs={place / 'outputs'}"]
    assert run_kd("train", *data_options, *teachers["hf"], *options, f"hydra.run.dir={place / 'run'}") == 0
    return place / "run"


def reproduce(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run_kd("reproduce", *arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize("options", [[], ["--from-scratch"]], ids=["teacher found", "teacher trained anew"])
def test_the_same_bits_again(run, tmp_path, capsys, options):
    code, out, _ = reproduce(capsys, run, "--into", tmp_path / "again", *options)
    assert code == 0 and "reproduced to the last bit" in out and "changed since" not in out
    assert json.loads((run / "environment.json").read_text())["kernels"] == KERNELS
    weights = [folder / "model" / "model.safetensors" for folder in (run, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert (tmp_path / "again" / "outputs" / "teachers").is_dir() == bool(options)
    assert max(map(len, out.splitlines())) <= 80


def test_it_goes_beside_the_other_outputs_and_trains_each_time(run, capsys):
    place = run.parent / "outputs" / "reproduced" / "run"
    for _ in range(2):
        assert reproduce(capsys, run)[0] == 0
    assert (place / "status.json").is_file() and (place / "previous" / "1").is_dir(), "set aside, not found done"


def test_another_run_is_told_from_it(run, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    config = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.safe_dump(config | {"seed": 1}))
    environment = json.loads((other / "environment.json").read_text())
    environment["packages"]["torch"] = "1.0"
    environment["data"]["train"] = "0" * 64
    del environment["machine"]
    (other / "environment.json").write_text(json.dumps(environment))
    RunDirectory(other).set_status("done")  # as if this were what the run had written
    code, out, _ = reproduce(capsys, other, "--into", tmp_path / "again")
    assert code == 1 and "other weights" in out and "not reproduced to the last bit" in out
    assert "changed since: package torch: 1.0 -> 2." in out and "labels changed" in out
    assert "changed since: train rows: 000000000000 -> " in out and "changed since: processor: None -> " in out


def test_bad_input(run, tmp_path, capsys):
    for place in (run, run / "inside", run.parent):
        code, _, err = reproduce(capsys, run, "--into", place)
        assert code == 2 and "expected --into apart from the run" in err
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "status.json").write_text("{}")
    code, _, err = reproduce(capsys, tmp_path / "foreign")
    assert code == 2 and "is damaged: state: field required" in err
    code, _, err = reproduce(capsys, tmp_path)
    assert code == 2 and "expected the directory of a kd run" in err
