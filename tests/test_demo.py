"""The demo's own commands on a tiny slice of the real reviews, with the real teacher: `make test` runs it apart."""

import re
import shlex
from pathlib import Path

import pytest

from kd.assets import home
from kd.cli import main

MAKEFILE = Path(__file__).parents[1] / "Makefile"
FURTHER = ("hinted pca", "mapped", "joint pca")


@pytest.mark.demo
def test_the_demo_on_a_tiny_slice(tmp_path, monkeypatch, capsys):
    if not (home() / "assets" / "all-minilm-l6-v2").is_dir():
        pytest.skip("the teacher's weights are not here: make install fetches them")
    monkeypatch.chdir(tmp_path)
    slice_of_it = ["data.limit=160", "trainer.max_epochs=1", "callbacks=[checkpoint]", "threads=2"]
    commands = re.findall(r"\$\(BIN\)/kd (train .*)", MAKEFILE.read_text().replace("\\\n", " "))
    assert len(commands) == 4
    for command in commands:
        assert main([*shlex.split(command), *slice_of_it]) == 0, command
    capsys.readouterr()
    assert main(["report", "outputs/quickstart"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for row in ("teacher", "alone random", "alone pca", "distilled random", "distilled pca", *FURTHER):
        assert re.search(rf"^{row} +\d+\.\d \[\d+\.\d, \d+\.\d\]", printed, re.MULTILINE), row
    assert main(["predict", "outputs/quickstart/distillation-pca-seed0", "a charming film"]) == 0
    assert "a charming film," in capsys.readouterr().out
    assert len(list(Path("outputs/teachers").glob("*/teacher.json"))) == 1
