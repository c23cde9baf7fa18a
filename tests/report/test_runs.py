"""Runs that are whole, damaged, or lack something."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from kd.cli import main
from kd.run.directory import RunDirectory
from kd.storage.files import write_json
from tests.report.written import Runs, findings, page, printed, table, words, write_run


@pytest.mark.slow
def test_a_mixed_folder(runs, capsys):
    """Two test sets, two students, a run that diverged, a cut one: each in its place."""
    runs.grid(seeds=(0,))
    runs.write("bilstm", "distillation", of_choices={"student": "bilstm"})
    Runs(runs.folder / "others").write("a", "distillation", data="other rows", of_choices={"data": "sst2"})
    diverged = runs.answers(0.7)
    diverged["test"][0] = np.nan
    runs.write("diverged", "distillation", logits=diverged, temperature=7)
    runs.write("cut", "distillation", temperature=8)
    (runs.folder / "cut" / "metrics.json").write_text("{")
    assert main(["report", str(runs.folder)]) == 0
    assert "found 2 that are not" in capsys.readouterr().err
    text = words((runs.folder / "report" / "index.html").read_text())
    assert "2 test sets: bilstm, dan on reviews and dan on sst2" in text
    assert {row["state"] for row in table(runs.folder, "left-out")} == {"damaged"}
    assert (runs.folder / "report" / "tables" / "2-results.csv").is_file()


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("metrics", "latency", {}),
        ("metrics", "parameters", None),
        ("metrics", "teacher_cost", {"name": "big", "model_bytes": 3}),
        ("metrics", "student", None),
        ("metrics", "training_seconds", "long"),
        ("metrics", "validation", None),
        ("environment", "teacher", {}),
        ("environment", "data", {}),
    ],
)
def test_a_run_that_lacks_a_figure_is_left_out(runs, file, key, value, capsys):
    runs.grid(seeds=(0,))
    path = runs.folder / "alone-0" / f"{file}.json"
    write_json(path, json.loads(path.read_text()) | {key: value})
    assert main(["report", str(runs.folder)]) == 0
    said = capsys.readouterr().err
    assert f"alone-0/{file}.json' is damaged: {key}" in said or "alone-0' lacks the figures" in said
    assert [row["state"] for row in table(runs.folder, "left-out")] == ["damaged"]


def test_a_run_with_other_rows_than_its_checksum_says_is_left_out(runs, capsys):
    runs.grid(seeds=(0,))
    predictions = RunDirectory(runs.folder / "alone-0").predictions_file
    table = pyarrow.parquet.read_table(predictions)
    other = pyarrow.array(np.roll(table["label"].to_numpy(), 1))
    pyarrow.parquet.write_table(table.set_column(table.column_names.index("label"), "label", other), predictions)
    assert main(["report", str(runs.folder)]) == 0
    assert "expected the test labels of the other runs" in capsys.readouterr().err


@pytest.mark.parametrize("lacking", ["curves", "validation", "teacher"])
def test_runs_that_lack_something_are_still_shown(runs, lacking):
    runs.grid(seeds=(0,))
    for path in runs.folder.iterdir():
        run = RunDirectory(path)
        if lacking == "curves":
            (path / "metrics.csv").unlink()
            continue
        rows = pyarrow.parquet.read_table(run.predictions_file)
        if lacking == "teacher":
            rows = rows.drop_columns(["teacher_logits"])
            write_json(path / "environment.json", run.environment() | {"teacher": None})
            write_json(run.metrics_file, {key: v for key, v in run.metrics().items() if key != "teacher_cost"})
        else:
            rows = rows.filter(pyarrow.compute.equal(rows["split"], "test"))
            write_json(run.metrics_file, {key: v for key, v in run.metrics().items() if key != "validation"})
        pyarrow.parquet.write_table(rows, run.predictions_file)
    text = words(page(runs.folder))
    assert "Results" in text
    if lacking == "validation":
        assert "so it could not choose" in text and "Highlighted" not in text
    if lacking == "teacher":
        assert "Gain of the peers over supervised training" in text and "Agreement with the teacher" not in text


def test_unfinished_and_damaged_runs_are_left_out_and_named(tmp_path, capsys):
    write_run(tmp_path / "good")
    write_run(tmp_path / "cut")
    (tmp_path / "cut" / "predictions.parquet").write_bytes(b"PAR1")
    (tmp_path / "half").mkdir()
    RunDirectory(tmp_path / "half").set_status("running")
    assert main(["report", str(tmp_path)]) == 0
    error = capsys.readouterr().err
    assert "left out: 1 run not finished" in error and "cut/predictions.parquet' is damaged" in error


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_nothing_to_report(tmp_path, folder, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / folder)]) == 2
    assert "found none" in capsys.readouterr().err


@pytest.mark.parametrize(("direction", "method"), [("to_teacher", "hints"), ("to_student", "composition")])
def test_a_run_of_before_has_the_names_of_today(tmp_path, capsys, direction, method):
    """Feature mapping was one method with a direction, and all options of both directions stood in its file."""
    both = {"layer": None, "layers": "top", "feature_epochs": 0, "direction": direction}
    old = {"_target_": f"kd.methods.feature_mapping.{direction}", "mapper_learning_rate": None, **both}
    mapper = {"_target_": "kd.features.mapper.Linear"}
    write_run(tmp_path / "old", "feature_mapping", correct=170, of_method=old, mapper=mapper)
    write_run(tmp_path / "supervised", "supervised", correct=130)
    assert set(findings(printed(capsys, tmp_path))) == {f"{method} - supervised"}
