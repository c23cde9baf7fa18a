"""``kd auto`` on tiny data."""

import re
from pathlib import Path

import pytest

from kd.run.directory import RunDirectory
from tests.conftest import run_kd

pytest.importorskip("optuna", reason="pip install 'kd[optuna]'")


@pytest.mark.slow
def test_the_winner_alone_reads_the_test_rows(options, capsys):
    words = [word for word in options if not word.startswith(("student", "teacher", "trainer.", "callbacks", "hydra"))]
    command = ["auto", *words, "teacher=none", "--budget", "10min"]
    assert run_kd(*command) == 0
    said, study = capsys.readouterr().out, Path("outputs/auto")
    runs = {place.parent.name: RunDirectory(place.parent) for place in study.glob("*/status.json")}
    states = {name: run.status()["state"] for name, run in runs.items()}
    read = [run for name, run in runs.items() if states[name] == "done" and "test" in run.metrics()]
    assert len(runs) == 4 and set(states.values()) <= {"done", "pruned"} and len(read) == 1
    best = max(run.objective("accuracy") for name, run in runs.items() if states[name] == "done")
    assert read[0].objective("accuracy") == best and read[0].test_reads() == 1
    again = re.search(r"^again: kd (.*)$", said, re.M)[1].replace("'", "").split()
    assert run_kd(*again, "hydra.run.dir=again", "threads=1") == 0
    made = RunDirectory(Path("again"))
    assert made.status()["identity"] == read[0].status()["identity"]
    assert made.metrics()["test"] == read[0].metrics()["test"]
    assert "What was tried" in (study / "report" / "report.md").read_text()
    assert run_kd(*command) == 0, "the same command finds all done"
    assert {place.parent.name for place in study.glob("*/status.json")} == set(runs)
    assert run_kd(*command[:-2], "seed=1", *command[-2:]) == 2
    assert "holds a study with other options" in capsys.readouterr().err
