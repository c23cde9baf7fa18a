"""What a run does before it trains."""

import pytest
from omegaconf import OmegaConf

from kd.errors import KDError
from kd.training.single_run import make_absolute, prepared


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
