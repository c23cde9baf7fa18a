"""kd's launcher plugin for Hydra (hydra_plugins/kd_launcher)."""

import pytest

from tests.conftest import run_kd


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["seed=range(3,1)"], "seed: expected at least one value, found none in 'seed=range(3,1)'"),
        (["student=glob(nothing*)", "hydra.sweeper.max_batch_size=1"], "student: expected at least one value"),
        (["experiment=mine", "--config-dir", "own"], "alpha: expected at least one value"),
        (["seed=choice()"], "expected KEY=VALUE, found seed=choice(), which cannot be read"),
    ],
)
def test_a_sweep_over_no_value_is_refused(tmp_path, monkeypatch, capsys, overrides, named):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "own/experiment/mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# @package _global_\nhydra: {sweeper: {params: {alpha: 'range(1,0)'}}}\n")
    assert run_kd("train", "-m", "trainer=cpu", *overrides) == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.glob("outputs/sweeps/*/*/")), "no job has run"


def test_of_several_values_of_a_key_the_last_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_kd("train", "-m", "trainer=cpu", "seed=range(3,1)", "seed=1", "student=nothing") == 2
    assert "student=nothing: expected a choice of student (bag, " in capsys.readouterr().err
