"""Searches with Optuna on a tiny teacher: what is asked, told, given up and gone on with."""

import json
from pathlib import Path

import pytest
import yaml

optuna = pytest.importorskip("optuna", reason="pip install 'kd[optuna]'")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from kd.errors import KDError  # noqa: E402
from kd.run.directory import RunDirectory  # noqa: E402
from kd.sweep.search import JOURNAL, Search, Space, open_storage  # noqa: E402
from tests.conftest import run_kd  # noqa: E402
from tests.end_to_end.test_sweep import jobs, states  # noqa: E402

SWEEP = Path("outputs/sweeps/files")


def study() -> optuna.Study:
    return optuna.load_study(study_name="files", storage=open_storage(SWEEP / JOURNAL))


def test_the_space_is_written_in_hydras_grammar():
    space = Space.of(
        [
            *("a=interval(1.0,8.0)", "b=tag(log,interval(0.001,0.1))", "c=range(1,8,2)", "d=range(0.25,1.0,0.25)"),
            *("loss=[soft_target],[dkd,hint]", "e=choice(1,x)", "f=int(interval(1,8))", "g=1", "g=2", "+h=3"),
        ]
    )
    assert space.fixed == ["g=2", "+h=3"]
    assert space.distributions == {
        "a": FloatDistribution(1.0, 8.0),
        "b": FloatDistribution(0.001, 0.1, log=True),
        "c": IntDistribution(1, 7, step=2),
        "d": FloatDistribution(0.25, 0.75, step=0.25),
        "loss": CategoricalDistribution(["[soft_target]", "[dkd,hint]"]),
        "e": CategoricalDistribution(["1", "x"]),
        "f": IntDistribution(1, 8),
    }
    with pytest.raises(KDError, match="searches nothing"):
        Space.of(["a=1"])


def search(folder: Path, **changes) -> Search:
    space = changes.pop("space", ["x=interval(0.0,1.0)", "seed=0"])
    sampler = optuna.samplers.RandomSampler(seed=0)
    known = {"objectives": ["accuracy"], "n_trials": 4, "batch": 2, **changes}
    return Search(folder, "study", space=Space.of(space), sampler=sampler, **known)


def drawn(overrides: list[str]) -> float:
    return next(float(one.split("=")[1]) for one in overrides if one.startswith("x="))


def test_a_killed_search_goes_on_and_tries_its_failures_again(tmp_path):
    """The trials that ran when it was killed come first, under their numbers; failed ones are drawn again once."""
    seen = []

    def dies(batch, first):
        seen.append([drawn(overrides) for overrides in batch])
        if first:
            raise KeyboardInterrupt
        return [0.5, KDError("no memory")]

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path).run(dies)
    again = search(tmp_path)
    known = [trial.state for trial in again.study.trials]
    assert known == [TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING, TrialState.RUNNING]

    def works(batch, first):
        seen.append([drawn(overrides) for overrides in batch])
        return [drawn(overrides) for overrides in batch]

    again.run(works)
    assert seen[2] == seen[1], "the same points"
    assert seen[3] == [seen[0][1]], "the failed one again, and no more than n_trials in all"
    assert sum(trial.state == TrialState.COMPLETE for trial in again.study.trials) == 4
    search(tmp_path).run(lambda *_: pytest.fail("the study has its trials"))
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert found["best_value"] == pytest.approx(max(0.5, *seen[2], *seen[3]))


def test_a_study_of_other_runs_is_refused(tmp_path):
    search(tmp_path).run(lambda batch, first: [0.5] * len(batch))
    with pytest.raises(KDError, match="is of other runs: fixed"):
        search(tmp_path, space=["x=interval(0.0,1.0)", "seed=1"])
    with pytest.raises(KDError, match="is of other runs: objectives"):
        search(tmp_path, objectives=["latency"])
    with pytest.raises(KDError, match="search space is not that of the study"):
        search(tmp_path, space=["x=a,b", "seed=0"], n_trials=6).run(lambda batch, first: [0.5] * len(batch))


def test_a_search_over_slots_tells_of_failures_and_prunes(options):
    """A learning rate with which nothing is learnt is given up, a setting that is refused is a failed trial."""
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
            assert sorted(trial.intermediate_values) == [0, 1, 2, 3], "the job itself told how it went"
        elif job["state"] == "pruned":
            assert trial.params["optim.optimizer.lr"] == "1e-08" and len(trial.intermediate_values) < 4
            assert "behind the search's other trials" in job["reason"] and not run.metrics_file.exists()
        else:
            assert trial.params["label_smoothing"] == "7" and trial.value is None


def test_several_objectives_have_a_front(options, capsys):
    command = ["train", "-m", *options, "student=dan", "hydra/sweeper=optuna", "method=supervised"]
    command += ["objective=[accuracy,parameters]", "student.hidden_size=8,64", "hydra.sweeper.n_trials=2"]
    assert run_kd(*command, "hydra.sweeper.sampler.seed=1") == 0
    for trial, job in zip(study().trials, jobs(), strict=True):
        metrics = RunDirectory(SWEEP / job["directory"]).metrics()
        assert trial.values == [metrics["validation"]["accuracy"], metrics["parameters"]["total"]]
    assert [one.name for one in study().directions] == ["MAXIMIZE", "MINIMIZE"]
    assert "beaten by no other" in capsys.readouterr().out
    assert states() == ["done", "done"]
    before = json.loads((SWEEP / "sweep.json").read_text())["finished"]
    assert run_kd(*command, "hydra.sweeper.sampler.seed=1") == 0
    assert len(study().trials) == 2 and before, "the same command finds the study done"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objective=speed"], "objective: expected some of accuracy"),
        (["objective=latency", "callbacks=[checkpoint,pruning]"], "callbacks=[pruning] compares validation accuracies"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials: expected a whole number"),
        (["hydra/launcher=basic"], "works with hydra/launcher=local"),
    ],
)
def test_what_cannot_be_searched_is_refused(options, changes, message, capsys):
    of_runs = [option for option in options if not option.startswith("hydra.launcher")]  # another has no such option
    assert run_kd("train", "-m", *of_runs, "hydra/sweeper=optuna", "alpha=0.1,0.5", *changes) == 2
    assert message in capsys.readouterr().err
