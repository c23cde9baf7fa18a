"""Searches with Optuna on a tiny teacher; tests/sweep/test_search.py holds what needs no training."""

import json
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna", reason="pip install 'kd[optuna]'")

from optuna.trial import TrialState  # noqa: E402

from kd.run.directory import RunDirectory  # noqa: E402
from kd.sweep.search import JOURNAL, open_storage  # noqa: E402
from tests.conftest import run_kd  # noqa: E402
from tests.end_to_end.test_sweep import jobs, states  # noqa: E402

SWEEP = Path("outputs/sweeps/files")


def study() -> optuna.Study:
    return optuna.load_study(study_name="files", storage=open_storage(SWEEP / JOURNAL))


@pytest.mark.slow
def test_a_search_over_slots_records_failures_and_prunes(options):
    """A trial whose learning rate is too small is pruned, and one with a refused setting is a failed trial."""
    command = ["train", "-m", *options, "student=dan", "hydra/sweeper=optuna", "hydra.launcher.slots=2"]
    command += ["method=supervised", "trainer.max_epochs=4", "callbacks=[checkpoint,pruning]"]
    command += ["callbacks.pruning.pruner.n_startup_trials=1", "callbacks.pruning.pruner.n_warmup_steps=1"]
    command += ["optim.optimizer.lr=0.1,1e-08", "seed=range(0,50)", "label_smoothing=0.0,0.1,7", "student.dropout=0"]
    assert run_kd(*command, "hydra.sweeper.n_trials=8") == 2
    trials = study().trials
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    expected = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    for trial, job in zip(trials, jobs(), strict=True):
        run = RunDirectory(SWEEP / job["directory"])
        assert f"seed={trial.params['seed']}" in job["overrides"] and trial.state == expected[job["state"]]
        assert run.status()["state"] == job["state"]
        if job["state"] == "done":
            assert trial.value == run.metrics()["validation"]["accuracy"]
            assert sorted(trial.intermediate_values) == [0, 1, 2, 3], "the job itself reported its accuracies"
        elif job["state"] == "pruned":
            assert trial.params["optim.optimizer.lr"] == "1e-08" and len(trial.intermediate_values) < 4
            assert "behind the search's other trials" in job["reason"] and not run.metrics_file.exists()
        else:
            assert trial.params["label_smoothing"] == "7" and trial.value is None


@pytest.mark.slow
def test_several_objectives_have_a_front(options, capsys):
    command = ["train", "-m", *options, "student=dan", "hydra/sweeper=optuna", "method=supervised"]
    command += ["objective=[accuracy,parameters]", "student.hidden_size=8,64", "hydra.sweeper.n_trials=2"]
    assert run_kd(*command, "hydra.sweeper.sampler.seed=1") == 0
    for trial, job in zip(study().trials, jobs(), strict=True):
        metrics = RunDirectory(SWEEP / job["directory"]).metrics()
        assert trial.values == [metrics["validation"]["accuracy"], metrics["parameters"]["total"]]
    assert [one.name for one in study().directions] == ["MAXIMIZE", "MINIMIZE"]
    assert "Pareto front, " in capsys.readouterr().out
    assert states() == ["done", "done"]
    before = json.loads((SWEEP / "sweep.json").read_text())["finished"]
    assert run_kd(*command, "hydra.sweeper.sampler.seed=1") == 0
    assert len(study().trials) == 2 and before, "the same command finds the study done"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objective=speed"], "objective: expected some of accuracy"),
        (["objective=latency", "callbacks=[checkpoint,pruning]"], "callbacks=[pruning] compares metric=accuracy"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials: expected a whole number"),
        (["hydra/launcher=basic"], "works with hydra/launcher=local"),
    ],
)
def test_what_cannot_be_searched_is_refused(options, changes, message, capsys):
    of_runs = [option for option in options if not option.startswith("hydra.launcher")]  # another has no such option
    assert run_kd("train", "-m", *of_runs, "hydra/sweeper=optuna", "alpha=0.1,0.5", *changes) == 2
    assert message in capsys.readouterr().err
