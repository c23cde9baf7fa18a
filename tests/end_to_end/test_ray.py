"""A sweep on a real Ray cluster on this machine."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import run_kd
from tests.end_to_end.test_sweep import OWN, trouble

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed: pip install 'kd[ray]'"),
]


@pytest.fixture
def cluster(monkeypatch):
    """Set the environment that Ray's workers inherit."""
    monkeypatch.setenv("PYTHONPATH", ":".join([str(Path(__file__).parents[2]), *filter(None, sys.path)]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


def test_a_sweep_ends_as_on_this_machine_and_reports_failures(cluster, options, capsys):
    sweep = [*options, "student=dan", "method=supervised,distillation", "seed=0,1", trouble("1:raise"), OWN]
    Path("flag").touch()
    there = ["hydra/launcher=ray", "hydra.launcher.report=false", "sweep=there"]
    assert run_kd("train", "-m", *sweep, *there) == 2
    assert "2 of 4 jobs failed" in capsys.readouterr().err
    Path("flag").unlink()
    assert run_kd("train", "-m", *sweep, *there) == 0
    assert capsys.readouterr().out.count("done before") == 2, "failed jobs are tried again, finished ones are found"
    assert run_kd("train", "-m", *sweep, "sweep=here") == 0
    runs = sorted(Path("outputs/sweeps/here").glob("*/metrics.json"))
    assert len(runs) == 4
    for here in runs:
        found = [json.loads(file.read_text()) for file in (here, Path("outputs/sweeps/there", *here.parts[-2:]))]
        assert [found[0][split] for split in ("validation", "test")] == [
            found[1][split] for split in ("validation", "test")
        ]
