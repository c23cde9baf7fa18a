"""The comparison of a run with its repetition, without a training."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from rich.console import Console

from kd.commands.reproduce import (
    SAME,
    changed_kernels,
    comparisons,
    differences,
    is_close,
    own_outputs,
    require_apart,
    show,
)
from kd.errors import KDError
from kd.run.directory import RunDirectory

LABELS = [0, 1]


def finished(path: Path, weights: bytes = b"w", shift: float = 0, labels: list[int] = LABELS) -> RunDirectory:
    """What is compared of a run, with two rows in each split."""
    run = RunDirectory(path)
    run.model.mkdir(parents=True)
    (run.model / "model.safetensors").write_bytes(weights)
    logits = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32) + np.array([0, shift], np.float32)
    tables = [{"split": [split] * 2, "label": labels, "logits": list(logits)} for split in ("validation", "test")]
    pyarrow.parquet.write_table(pyarrow.concat_tables(map(pyarrow.table, tables)), run.predictions_file)
    accuracy = {"accuracy": float((logits.argmax(1) == labels).mean())}
    run.metrics_file.write_text(json.dumps({"validation": accuracy, "test": accuracy}))
    (path / "environment.json").write_text("{}")
    return run


def verdicts(*runs: RunDirectory) -> dict[str, str]:
    return {found.name: found.verdict for found in comparisons(*runs)}


def test_equal_runs_are_the_same(tmp_path):
    found = verdicts(finished(tmp_path / "one"), finished(tmp_path / "two"))
    assert len(found) == 5 and set(found.values()) == {SAME}


def test_what_differs_is_measured(tmp_path):
    found = verdicts(finished(tmp_path / "one"), finished(tmp_path / "two", weights=b"v", shift=2))
    assert found["weights, sha256"] == "other weights"
    assert found["test logits"] == "off by 2, 1 labels changed" and found["test accuracy"] == "-50.00 points"


def test_other_rows_are_not_compared(tmp_path):
    found = verdicts(finished(tmp_path / "one"), finished(tmp_path / "two", labels=[1, 1]))
    assert found["test rows"] == "other rows: the data changed" and "test logits" not in found


def test_missing_weights_are_named(tmp_path):
    one, two = finished(tmp_path / "one"), finished(tmp_path / "two")
    (two.model / "model.safetensors").unlink()
    with pytest.raises(KDError, match=r"expected the weights of a run in .*two"):
        list(comparisons(one, two))


def test_the_exit_code_says_whether_all_is_the_same(tmp_path, capsys):
    console = Console()
    one, two = finished(tmp_path / "one"), finished(tmp_path / "two", shift=2)
    assert show(comparisons(one, one), ["threads: 1 -> 2"], console) == 0
    assert show(comparisons(one, two), [], console) == 1
    printed = capsys.readouterr().out
    assert "changed since: threads: 1 -> 2" in printed and "reproduced to the last bit" in printed
    printed = " ".join(printed.split())
    assert "nothing that is recorded changed: set trainer.deterministic=true" in printed


def test_with_another_kernel_the_accuracies_are_compared(tmp_path, capsys):
    one, two = finished(tmp_path / "one"), finished(tmp_path / "two", weights=b"v", shift=1e-7)
    kernels = changed_kernels({}, {"kernels": {"adamw_cpu": 2}})
    assert kernels == ["adamw_cpu"] and not changed_kernels(
        {"kernels": {"adamw_cpu": 2}}, {"kernels": {"adamw_cpu": 2}}
    )
    assert show(comparisons(one, two), [], Console(), kernels) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "reproduced: a kernel of kd changed since (adamw_cpu), so the bits differ; accuracies are" in printed
    other = finished(tmp_path / "three", labels=[1, 1])
    assert show(comparisons(one, other), [], Console(), kernels) == 1
    assert "not reproduced: a kernel of kd changed since" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("rows", "changed", "close"), [(2, 1, True), (2, 2, False), (300, 6, True), (300, 7, False)])
def test_an_accuracy_is_close_within_two_points_or_a_row(rows, changed, close):
    assert is_close(0.5, 0.5 + changed / rows, rows) == close


def test_differences_of_two_environments():
    before = {"packages": {"torch": "1"}, "python": "3.11", "threads": 1, "data": {"train": "a" * 20}, "git": None}
    assert differences(before, before) == []
    now = {**before, "packages": {"torch": "2", "new": "1"}, "machine": {"processor": "fast"}, "threads": None}
    assert set(differences(before, now)) == {
        *("package torch: 1 -> 2", "package new: None -> 1", "processor: None -> fast", "threads: 1 -> None")
    }


def test_outputs_are_here_around_the_run_or_hold_teachers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert own_outputs(Path("run"), "outputs") == Path("outputs")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert own_outputs(tmp_path / "outputs/runs/mine", str(tmp_path / "outputs")) == tmp_path / "outputs"
    with pytest.raises(KDError, match="give --outputs DIR"):
        own_outputs(Path("run"), "../up")
    (tmp_path / "elsewhere/teachers").mkdir(parents=True)
    assert own_outputs(Path("run"), str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


def test_the_repetition_stands_apart(tmp_path):
    require_apart(tmp_path / "run", tmp_path / "again")
    for place in (tmp_path / "run", tmp_path / "run/inside", tmp_path):
        with pytest.raises(KDError, match="expected --into apart from the run"):
            require_apart(tmp_path / "run", place)
