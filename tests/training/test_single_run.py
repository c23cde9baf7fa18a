"""What a run does before it trains."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kd.errors import KDError
from kd.report.runs import find_runs
from kd.run.directory import RunDirectory
from kd.training.single_run import make_absolute, prepared
from tests.conftest import run_kd


def test_paths_that_exist_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.csv").touch()
    data = {"path": "asset:reviews", "train": "here.csv", "unlabelled": ["here.csv", "no.csv"]}
    steps = {"documents": {"path": ["here.csv", "asset:reviews"]}, "rules": {"path": None}, "halves": {}}
    config = OmegaConf.create({"data": data, "transfer": steps})
    make_absolute(config)
    here = str(tmp_path / "here.csv")
    assert config.transfer == {"documents": {"path": [here, "asset:reviews"]}, "rules": {"path": None}, "halves": {}}
    assert config.data == {"path": "asset:reviews", "train": here, "unlabelled": [here, "no.csv"]}


def test_a_value_that_the_user_must_set_is_named():
    with pytest.raises(KDError, match=r"^teacher\.name: expected a value, got none; set it on the command line"):
        prepared(OmegaConf.create({"data": {}, "teacher": {"name": "???"}}))


def test_the_test_rows_can_be_read_later(options, capsys):
    """A run with ``measure_test=false`` keeps nothing of the test rows; later they are read without a training."""
    command = ["train", *[word for word in options if "embedding_size" not in word], "student=bag", "method=supervised"]
    assert run_kd(*command, "hydra.run.dir=late", "measure_test=false") == 0
    late = RunDirectory(Path("late"))
    assert "test" not in late.metrics() and not (late.model / "README.md").exists()
    with pytest.raises(KDError, match="found none"):
        find_runs([late.path])
    assert "measure_test=true" in capsys.readouterr().err, "the report says what to do"
    weights = (late.model / "model.safetensors").stat().st_mtime_ns
    assert run_kd(*command, "hydra.run.dir=late") == 0 and run_kd(*command, "hydra.run.dir=usual") == 0
    assert late.is_done and (late.model / "model.safetensors").stat().st_mtime_ns == weights
    usual = RunDirectory(Path("usual")).metrics()
    assert [late.metrics()[name] for name in ("validation", "test")] == [usual["validation"], usual["test"]]
    assert late.predictions_file.read_bytes() == RunDirectory(Path("usual")).predictions_file.read_bytes()
    assert late.test_reads() == 1 and json.loads(late.status_file.read_text())["state"] == "done"
