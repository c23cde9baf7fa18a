"""Folds are pooled: rows tested once, arms joined across folds, missing folds named; with bags on real folds."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kd.report.folds import averaged, pool_folds, pooled_sentence
from kd.report.runs import find_runs
from kd.report.study import studies
from tests.conftest import run_kd
from tests.report.written import printed, table, write_run

BAGS = ["student=bag", "teacher=none", "method=supervised", "tokenizer=words", "data=files", "data.path=reviews.csv"]


@pytest.fixture(scope="module")
def trained(reviews_file, tmp_path_factory) -> Path:
    """Two bags on four folds."""
    folder = tmp_path_factory.mktemp("folds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("reviews.csv").write_bytes(reviews_file.read_bytes())
        sweep = ["sweep=bags", "hydra.launcher.report=false", "hydra.launcher.slots=1", "threads=1"]
        axes = ["data.fold=0,1,2,3", "student.ngrams=1,2"]
        assert run_kd("train", "-m", *BAGS, *sweep, "data.folds=4", *axes) == 0
    return folder


@pytest.fixture
def folds(trained, tmp_path, monkeypatch) -> Path:
    """A copy of them that a test may change."""
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "folds"))
    return Path("outputs/sweeps/bags").absolute()


@pytest.mark.slow
def test_each_row_is_tested_once_and_arms_are_joined(folds, capsys):
    found = pool_folds(find_runs([folds]))
    (study,) = studies(found.runs)
    assert len(found.runs) == len(study.arms) == 2 and study.rows == 160 and len(study.trainings) == 8
    for arm in study.arms:
        parts = arm.first.parts
        assert [part.fold for part in parts] == [0, 1, 2, 3]
        right = np.concatenate([part.test.correct for part in parts])
        assert arm.score == right.mean() and arm.first.metrics["test"]["rows"] == 160
    low, high = study.judge.interval(study.arms[0])
    assert high - low < 0.12, "the interval is that of 160 rows, not of 40"
    lines = "\n".join(printed(capsys, folds))
    assert "Pooled over 4 folds: each of the 160 rows is tested once." in lines
    assert lines.count("ngrams=") >= 2 and "fold=" not in lines
    assert [row["seeds"] for row in table(folds, "results")] == ["0 (n = 1)"] * 2


@pytest.mark.slow
def test_missing_folds_are_named(folds, capsys):
    (lost,) = [run for run in find_runs([folds]).runs if run.fold == 2 and run.settings["student.ngrams"] == 1]
    (lost.directory.path / "status.json").unlink()
    found = pool_folds(find_runs([folds]))
    assert len(found.runs) == 1 and found.runs[0].settings["student.ngrams"] == 2
    assert sum("its setting lacks fold 2" in reason for _, reason in found.left_out) == 3
    for run in find_runs([folds]).runs:
        if run.fold == 2:
            (run.directory.path / "status.json").unlink()
    assert len((pooled := pool_folds(find_runs([folds]))).runs) == 2
    assert pooled_sentence(pooled.runs[0]) == (
        "Pooled over 3 of 4 folds, each row tested once: fold 2 is missing (data.fold=2)."
    )


def test_seeds_and_a_teacher_are_paired_over_the_pooled_rows(tmp_path, capsys):
    for seed in (0, 1):
        for fold in range(3):
            options = {"seed": seed, "test": f"rows {fold}", "data": {"fold": fold, "folds": 3}}
            write_run(tmp_path / f"a{seed}{fold}", "supervised", correct=150, shift=fold, **options)
            write_run(tmp_path / f"d{seed}{fold}", "distillation", correct=160, shift=fold, **options)
    write_run(tmp_path / "copy", "supervised", correct=10, seed=1, test="rows 0", data={"fold": 0, "folds": 3})
    lines = "\n".join(printed(capsys, tmp_path))
    assert "600 test rows" in lines and "distillation - supervised" in lines and "+5.0" in lines
    (one,) = table(tmp_path, "gain")
    assert one["seeds"] == "0, 1 (n = 2)" and float(one["points"]) == pytest.approx(0.05)
    assert (
        sum("is also in" in line for line in [reason for _, reason in pool_folds(find_runs([tmp_path])).left_out]) == 1
    )


def test_other_rows_under_the_same_fold_are_left_out(tmp_path):
    for seed, test in enumerate(("rows", "rows", "others")):
        write_run(tmp_path / str(seed), seed=seed, test=test, data={"fold": 0})
    found = pool_folds(find_runs([tmp_path]))
    assert len(found.runs) == 2 and "other test rows" in found.left_out[0][1]


def test_averages():
    assert averaged([{"a": True, "b": 1.0, "c": [1]}, {"a": False, "b": 2.0, "c": [2]}]) == {
        "a": True,
        "b": 1.5,
        "c": [1],
    }
