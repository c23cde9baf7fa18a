"""``kd init`` writes what the commands that it prints can use."""

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import run_kd


@pytest.mark.slow
def test_what_it_prints_can_be_typed(tmp_path, monkeypatch, capsys, teacher_folder):
    """Every printed command runs as it is; only the experiment has a tiny teacher, because tests are offline."""
    monkeypatch.chdir(tmp_path)
    assert run_kd("init", "my own") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith(("#", "wrote"))]
    assert shlex.split(lines[0]) == ["cd", "my own"]
    monkeypatch.chdir(tmp_path / "my own")
    commands = [shlex.split(line) for line in lines[1:]]
    assert Path("README.md").read_text().count("kd ") >= len(commands) == 5
    experiment = Path("conf/experiment/mine.yaml")
    tiny = f"teacher:\n  name_or_path: {teacher_folder}\n  learning_rate: 3e-3\n"
    text = experiment.read_text().replace("defaults:\n", "defaults:\n  - override /embeddings: random\n")
    text = text.replace("max_epochs: 20", "max_epochs: 2")
    experiment.write_text(text.replace("teacher:\n", tiny))  # too narrow a teacher for embeddings=pca
    for command in commands:
        assert command[0] == "kd" and run_kd(*command[1:]) == 0, command
    printed = capsys.readouterr().out
    assert re.search(r"^distillation +\d", printed, re.MULTILINE) and re.search(
        r"^I was charged twice,billing,", printed, re.M
    )


def test_it_overwrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "messages.csv").write_text("mine")
    assert run_kd("init") == 2
    assert "expected no 'messages.csv', found one" in capsys.readouterr().err
    assert (tmp_path / "messages.csv").read_text() == "mine" and not (tmp_path / "conf").exists()
    (tmp_path / "file").write_text("")
    assert run_kd("init", "file") == 2
    assert "file" in capsys.readouterr().err
