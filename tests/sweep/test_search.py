"""A search space in Hydra's grammar, and the trials of a study; no run is trained."""

import contextlib
import copy
import json
import random
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

optuna = pytest.importorskip("optuna", reason="pip install 'kd[optuna]'")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from kd.errors import KDError  # noqa: E402
from kd.sweep.search import Search, Space, comparable, plain, written  # noqa: E402
from tests.data.writing import damage  # noqa: E402


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


def test_a_killed_search_resumes_and_repeats_failed_trials(tmp_path):
    """The trials that were running come first, under their numbers; each failed trial is repeated one time."""
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


def test_given_trials_come_first_and_once_and_the_time_ends_a_search(tmp_path):
    """What was spent is kept: the same command has only the rest of the time, a larger one goes on."""
    seen = []

    def launch(batch, first):
        seen.extend(drawn(overrides) for overrides in batch)
        time.sleep(0.03)
        return [drawn(overrides) for overrides in batch]

    given = {"first": [{"x": 0.75}, {"x": 0.25}], "batch": 1}
    search(tmp_path, **given, seconds=0.02).run(launch)
    assert seen == [0.75]
    search(tmp_path, **given, seconds=0.02).run(lambda *_: pytest.fail("the time was over"))
    search(tmp_path, **given, seconds=60.0).run(launch)
    assert seen[:2] == [0.75, 0.25] and len(seen) == 4


ODD = (None, True, "x", "", -1, 10**6, 10**400, 0.5, float("nan"), [], {}, [None], {"a": 1}, ["x"])


@pytest.fixture(scope="module")
def journal(tmp_path_factory) -> list[dict]:
    """The lines of a study of four trials, of which one failed."""
    folder = tmp_path_factory.mktemp("study")
    results = iter([0.5, KDError("no memory"), 0.25, 0.75, 0.125, 1.0])
    search(folder).run(lambda batch, _: [next(results) for _ in batch])
    return [json.loads(line) for line in (folder / "study.journal").read_text().splitlines()]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_any_change_of_the_journal_is_answered(journal, tmp_path_factory, seed):
    draw, lines = random.Random(seed), copy.deepcopy(journal)
    line = draw.choice(lines)
    key = draw.choice(list(line))
    draw.choice((lambda: line.update({key: draw.choice(ODD)}), lambda: line.pop(key), lambda: lines.remove(line)))()
    folder = tmp_path_factory.mktemp("changed")
    (folder / "study.journal").write_text("".join(json.dumps(line) + "\n" for line in lines))
    batches = []

    def works(batch, first):
        batches.append(batch)
        assert len(batches) <= 8, "the search ends"
        return [0.5] * len(batch)

    with contextlib.suppress(KDError):
        search(folder).run(works)


def test_a_changed_figure_or_parameter_does_not_match_its_checksum(journal, tmp_path):
    told = [number for number, line in enumerate(journal) if line.get("values")]
    drawn = [number for number, line in enumerate(journal) if "param_value_internal" in line]
    assert told and drawn
    for number in told:
        lines = copy.deepcopy(journal)
        lines[number]["values"] = [lines[number]["values"][0] + 0.01]
        (tmp_path / "study.journal").write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(KDError, match=r"study.journal' is damaged .*the figures of trial \d+ do not match"):
            search(tmp_path)
    lines = copy.deepcopy(journal)
    lines[drawn[0]]["param_value_internal"] /= 2
    (tmp_path / "study.journal").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(KDError, match="do not match their checksum"):
        search(tmp_path)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_damaged_bytes_of_the_journal_change_no_figure(journal, tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("bytes")
    path = folder / "study.journal"
    path.write_text("".join(json.dumps(line) + "\n" for line in journal))
    damage(path, seed)
    with contextlib.suppress(KDError):
        trials = search(folder).study.trials
        assert {trial.value for trial in trials if trial.value is not None} <= {0.5, 0.25, 0.75, 0.125, 1.0}


@pytest.mark.parametrize("text", ["{", "[]\n", "x\n", "\xff\n", '{"op_code": 99}\n{}\n', "[" * 100_000 + "\n"])
def test_a_journal_that_is_none_is_damaged(tmp_path, text):
    (tmp_path / "study.journal").write_text(text + '{"op_code": 0}\n')
    with pytest.raises(KDError, match=r"study\.journal' is damaged"):
        search(tmp_path)


def test_a_line_that_a_killed_process_has_half_written_is_cut(journal, tmp_path):
    whole = "".join(json.dumps(line) + "\n" for line in journal)
    (tmp_path / "study.journal").write_text(whole + '{"op_code": 5, "wor')
    again = search(tmp_path)
    assert len(again.study.trials) == sum(line["op_code"] == 4 for line in journal)
    again.study.set_user_attr("still", "whole")
    assert search(tmp_path).study.user_attrs["still"] == "whole"


def test_a_study_of_other_runs_is_refused(tmp_path):
    search(tmp_path).run(lambda batch, first: [0.5] * len(batch))
    with pytest.raises(KDError, match="expected the study's fixed"):
        search(tmp_path, space=["x=interval(0.0,1.0)", "seed=1"])
    with pytest.raises(KDError, match="expected the study's objectives"):
        search(tmp_path, objectives=["latency"])
    with pytest.raises(KDError, match="has another search space"):
        search(tmp_path, space=["x=a,b", "seed=0"], n_trials=6).run(lambda batch, first: [0.5] * len(batch))


def test_drawn_values_are_written_as_a_user_would():
    assert [plain(value) for value in (0.7000000000000001, 3, "cls")] == [0.7, 3, "cls"]
    assert written({"alpha": 0.123456, "seed": 3}) == "alpha=0.1235 seed=3"
    assert comparable(["seed=1", "threads=4", "alpha=0.5"]) == ["alpha=0.5", "seed=1"], "threads change no result"
