"""The tables."""

from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from kd.report.contents import agreement_parts
from kd.report.runs import Split
from tests.report.written import add_to_metrics, page, printed, table, write_run


def test_the_numbers_are_those_of_the_runs(runs):
    runs.grid()
    page(runs.folder)
    paths = [runs.folder / f"taught-4-0.9-{seed}" for seed in range(3)]
    tables = [pyarrow.parquet.read_table(path / "predictions.parquet").to_pandas() for path in paths]
    accuracies = []
    for one in tables:
        test = one[one["split"] == "test"]
        accuracies.append(float((np.stack(test["logits"]).argmax(1) == test["label"]).mean()))
    (row,) = [row for row in table(runs.folder, "results") if row["model"] == "distillation alpha=0.9 temperature=4"]
    assert float(row["test"]) == pytest.approx(np.mean(accuracies))
    assert float(row["±"]) == pytest.approx(np.std(accuracies, ddof=1))
    assert row["seeds"] == "0, 1, 2 (n = 3)"
    assert float(row["95 % interval low"]) < np.mean(accuracies) < float(row["95 % interval high"])
    teacher = (runs.teacher["test"].argmax(1) == runs.labels["test"]).mean()
    assert float(row["retained"]) == pytest.approx(np.mean(accuracies) / teacher)
    (supervised,) = [float(row["test"]) for row in table(runs.folder, "results") if row["model"] == "supervised"]
    gap = (np.mean(accuracies) - supervised) / (teacher - supervised)
    assert float(row["gap closed"]) == pytest.approx(gap)


def test_agreement_where_the_teacher_is_right_and_wrong():
    labels = np.array([0, 0, 0, 0, 1])
    teacher = Split(labels, np.eye(2)[[0, 0, 1, 1, 1]])  # wrong on rows 2 and 3
    student = np.eye(2)[[0, 1, 1, 0, 1]]
    of_runs = lambda *splits: agreement_parts(SimpleNamespace(runs=[SimpleNamespace(test=one) for one in splits]))  # noqa: E731
    assert of_runs(Split(labels, student, teacher)) == pytest.approx([3 / 5, 2 / 3, 1 / 2])
    always_right = Split(labels, student, Split(labels, np.eye(2)[labels]))
    assert of_runs(always_right)[2] is None and of_runs(Split(labels, student)) == []
    assert of_runs(always_right, Split(labels, student, teacher)) == pytest.approx([3 / 5, (3 / 5 + 2 / 3) / 2, 1 / 2])


def test_the_fit_of_each_arm_is_shown(tmp_path, capsys):
    """Most runs of an arm decide the word; an arm of an early kd has no row."""
    base = {"train_accuracy": 0.99, "gap": 0.2, "rows": 100, "best_epoch": 2, "epochs": 8}
    over = {"verdict": "overfitting", "sentence": "Try student.dropout=0.4.", **base}
    for seed, found in enumerate((over, over, {**over, "verdict": "neither"})):
        write_run(tmp_path / f"new{seed}", seed=seed)
        add_to_metrics(tmp_path / f"new{seed}", fitting=found)
        write_run(tmp_path / f"old{seed}", "distillation", seed=seed)
    printed(capsys, tmp_path)
    (row,) = table(tmp_path, "fitting")
    assert row["fit"] == "overfitting (2 of 3)" and float(row["gap"]) == pytest.approx(0.2)
    assert "Try student.dropout=0.4." in (tmp_path / "report" / "report.md").read_text()
