"""Whether a run is done, resumes, or starts from scratch."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from kd.run.directory import RunDirectory
from kd.run.identity import identity
from kd.training.resume import checkpoint_of, loads, same_run

CONFIG = {"method": {"_target_": "x"}, "data": {"path": "y"}}
ROWS = {"train": "a", "validation": "b", "test": "c"}


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def splits(**rows: str) -> SimpleNamespace:
    return SimpleNamespace(counts={"splits": {name: {"sha256": value} for name, value in (ROWS | rows).items()}})


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    run = RunDirectory(tmp_path)
    run.config_file.write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "environment.json").write_text('{"data": {"train": "a", "validation": "b", "test": "c"}}')
    run.set_status("running", identity=identity(CONFIG))
    run.checkpoints.mkdir()
    return run


def test_a_checkpoint_is_not_unpickled(tmp_path):
    torch.save({"state_dict": {}, "bomb": Bomb(tmp_path / "marker")}, tmp_path / "last.ckpt")
    assert not loads(tmp_path / "last.ckpt")
    assert not (tmp_path / "marker").exists()


def test_the_same_run_has_the_same_identity_and_rows(run):
    assert same_run(run, identity(CONFIG), splits())
    assert not same_run(run, "another", splits())
    assert not same_run(run, identity(CONFIG), splits(test="other rows"))
    run.set_status("failed")
    assert same_run(run, identity(CONFIG), splits()), "of a run that did not write its identity"
    (run.path / "environment.json").unlink()
    assert not same_run(run, identity(CONFIG), splits())


def test_an_empty_directory_holds_no_run(tmp_path):
    assert not same_run(RunDirectory(tmp_path), identity(CONFIG), splits())


def test_a_run_resumes_from_its_last_checkpoint_if_all_are_whole(run, caplog):
    assert checkpoint_of(run) is None
    for name in ("last", "best"):
        torch.save({"state_dict": {"weight": torch.arange(1000)}}, run.checkpoints / f"{name}.ckpt")
    assert checkpoint_of(run) == run.checkpoints / "last.ckpt"
    content = bytearray((run.checkpoints / "best.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (run.checkpoints / "best.ckpt").write_bytes(content)
    assert checkpoint_of(run) is None and "is damaged: the run starts from scratch" in caplog.text
