"""The demo's own commands on a tiny slice of the real reviews, with the real teacher: `make test` runs it apart."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kd.cli import main
from kd.storage.assets import home

MAKEFILE = Path(__file__).parents[2] / "Makefile"
ROWS = ("teacher", "supervised", "distillation", "supervised bag")


@pytest.mark.demo
def test_the_demo_on_a_tiny_slice(tmp_path, monkeypatch, capsys):
    if not (home() / "assets" / "all-minilm-l6-v2").is_dir():
        pytest.skip("the teacher's weights are not here: make install fetches them")
    monkeypatch.chdir(tmp_path)
    slice_of_it = ["data.limit=160", "trainer.max_epochs=1", "callbacks=[checkpoint]", "threads=2"]
    commands = re.findall(r"\$\(BIN\)/kd (train .*)", MAKEFILE.read_text().replace("\\\n", " "))
    assert len(commands) == 3
    slice_of_it += ["transfer_rows=60"]
    for command in commands:
        assert main([*shlex.split(command), *slice_of_it]) == 0, command
    capsys.readouterr()
    assert main(["report", "outputs/quickstart"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for row in ROWS:
        assert re.search(rf"^{row} +\d+\.\d \[\d+\.\d, \d+\.\d\]", printed, re.MULTILINE), row
    assert main(["predict", "outputs/quickstart/textcnn-distillation-seed0", "a charming film"]) == 0
    assert "a charming film," in capsys.readouterr().out
    assert len(list(Path("outputs/teachers").glob("*/teacher.json"))) == 1


@pytest.mark.demo
@pytest.mark.parametrize(
    "command",
    [
        "training.py --rows 128 --repeats 1 --students dan",
        "losses.py --rows 128 --repeats 1 --losses hint tinybert_attention",
        "compiling.py --rows 128 --repeats 1 --students dan",
    ],
)
def test_a_benchmark_that_the_readme_quotes_runs(command, tmp_path):
    """`sweep.py`, `ranks.py` and `large.py` call ``kd`` as anyone does; these call its parts."""
    if not (home() / "assets" / "all-minilm-l6-v2").is_dir():
        pytest.skip("the teacher's weights are not here: make install fetches them")
    script, *options = command.split()
    command = [sys.executable, MAKEFILE.parent / "benchmarks" / script, *options, "--threads", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\bsteps? of 64\b", done.stdout), done.stdout
