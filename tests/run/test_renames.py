"""Runs, commands and files of before: ``tests/run/old`` holds what runs left before the names changed, in miniature."""

import copy
import importlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

from kd.config.check import check
from kd.config.compose import composed
from kd.config.make import resolve
from kd.errors import KDError
from kd.run import renames
from kd.run.directory import RunDirectory
from kd.run.identity import identity
from tests.conftest import run_kd

OLD = Path(__file__).parent / "old"
RUNS = sorted(folder.name for folder in OLD.iterdir())
NEW = {"hinted": "hints", "mapped": "composition", "balanced": "distillation", "joint": "joint"}


def written(name: str) -> dict:
    return yaml.safe_load((OLD / name / "config.yaml").read_text())


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_keeps_its_identity(name):
    run = RunDirectory(OLD / name)
    assert identity(run.config()) == run.status()["identity"]
    assert run.config()["choices"]["method"] == NEW[name]


@pytest.mark.parametrize("name", RUNS)
def test_the_first_names_come_back(name):
    config = written(name)
    renames.current(config)
    assert config != written(name)
    assert renames.first(config) == written(name)
    again = copy.deepcopy(config)
    renames.current(again)
    assert again == config, "names of today stay"


@pytest.mark.parametrize("name", [*renames.FIRST, *(target for _, target, _ in renames.DIRECTIONS.values())])
def test_the_names_of_today_exist(name):
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["method=feature_mapping", "loss=[soft_target,hint]"], ["method=hints", "loss=[soft_target,hint]"]),
        (
            ["method=feature_mapping", "method.direction=to_teacher", "method.layers=last", "loss=[hint]"],
            ["method=hints", "method.layers=last", "loss=[hint]"],
        ),
        (
            ["method=feature_mapping", "method.direction=to_student", "method.layer=2", "mapper=pca"],
            ["method=composition", "method.layer=2", "mapper=pca"],
        ),
        (["++mapper._target_=kd.mapper.Linear"], ["mapper=linear"]),
        (["++balance.alpha._target_=kd.methods.balance.Constant"], []),
        (["data.source.text=title", "++data.source.limit=9"], ["data.text=title", "data.limit=9"]),
    ],
)
def test_old_commands_mean_what_they_meant(old, new):
    before, after = composed(old), composed(new)
    check(before)
    assert resolve(before) == resolve(after)


def test_old_names_in_files_of_ones_own(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /method: feature_mapping\n"
        "method:\n  direction: to_student\n  layer: 1\n"
    )
    (tmp_path / "mapper").mkdir()
    (tmp_path / "mapper" / "mine.yaml").write_text("_target_: kd.mapper.LowRank\n_partial_: true\nrank: 4\n")
    config = composed(["experiment=mine", "mapper=mine"], tmp_path)
    check(config)
    assert config.method == {
        "_target_": "kd.methods.composition.Composition",
        "mapper_learning_rate": None,
        "layer": 1,
    }
    assert config.mapper._target_ == "kd.features.mapper.LowRank"


def test_a_data_file_of_ones_own_that_repeats_its_keys(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(
        "defaults: [files, _self_]\nname: mine\npath: here.csv\nhub: a/b\nsource:\n"
        "  _target_: kd.data.sources.from_files_or_hub\n  _convert_: all\n  hub: ${..hub}\n  text: title\n"
        "  hub_config: ${..name}\n"
    )
    data = composed(["data=mine"], tmp_path).data
    assert "source" not in data and data._target_ == "kd.data.sources.from_files_or_hub"
    assert (data.path, data.hub, data.text, data.hub_config) == ("here.csv", "a/b", "title", "mine")


def test_the_new_name_is_said_once(caplog, monkeypatch):
    monkeypatch.setattr(renames, "_WARNED", set())
    for _ in range(2):
        composed(["method=feature_mapping", "loss=[hint]"])
    (line,) = [record.getMessage() for record in caplog.records if "old names" in record.getMessage()]
    assert "method=feature_mapping is now method=hints" in line


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method.direction=sideways"], "method.direction: expected to_student or to_teacher, got 'sideways'"),
        (["method.layer=2"], "method.layer=2 is not read by method=hints"),
        (["method.direction=to_student", "method.layers=last"], "method.layers=last is not read by method=composition"),
    ],
)
def test_options_of_the_other_direction_are_refused(overrides, words):
    with pytest.raises(KDError, match=words):
        composed(["method=feature_mapping", *overrides])


def test_a_report_shows_old_runs_under_the_new_names(tmp_path, capsys):
    for name in RUNS:
        shutil.copytree(OLD / name, tmp_path / name)
        (tmp_path / name / "model").mkdir()
        (tmp_path / name / "metrics.csv").write_text("epoch,step\n")
    assert run_kd("report", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    rows = {line.split()[0] for line in printed.splitlines() if line.strip()}
    assert set(NEW.values()) <= rows, printed


def test_an_old_configuration_repeats_the_same_run():
    """What `kd train` compares before it says that a run is already done."""
    before = json.loads((OLD / "hinted" / "status.json").read_text())["identity"]
    overrides = ["experiment=methods", "data.limit=600", "threads=1", "trainer.max_epochs=3"]
    for method in ("hints", "feature_mapping"):
        config = composed([*overrides, f"method={method}", "loss=[soft_target,hint]", "method.feature_epochs=1"])
        assert identity(resolve(config)) == before
