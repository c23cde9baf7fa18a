"""`kd report` on run directories written by hand, whose right answers are known."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml

from kd.cli import main
from kd.run.directory import RunDirectory

ROWS = 200


def write_run(
    path: Path,
    method="supervised",
    embeddings="pca",
    correct=160,
    shift=0,
    seed=0,
    test="rows",
    of_method=None,
    **changes,
):
    """A run that has ``correct`` of 200 rows right, beginning at row ``shift``; the teacher has 180."""
    path.mkdir(parents=True)
    labels = np.arange(ROWS) % 2
    right = (np.arange(ROWS) - shift) % ROWS < correct
    logits = np.eye(2)[np.where(right, labels, 1 - labels)]
    teacher = np.eye(2)[np.where(np.arange(ROWS) < 180, labels, 1 - labels)]
    table = {"split": ["test"] * ROWS, "label": labels, "logits": list(logits), "teacher_logits": list(teacher)}
    pyarrow.parquet.write_table(pyarrow.table(table), path / "predictions.parquet")
    choices = {
        "method": method,
        "student": "dan",
        "embeddings": embeddings,
        "tokenizer": "words",
        "teacher": "hf",
        "data": "files",
    }
    config = {"choices": choices, "seed": seed, "alpha": 0.5, "temperature": 2.0, "label_smoothing": 0.0, **changes}
    config |= {
        "loss": {"soft_target": {"_target_": "x", "temperature": config["temperature"], "weight": 1.0}},
        "data": {"path": "a"},
    }
    config |= {"embeddings": {"_target_": embeddings, "std": 0.1}}
    config["method"] = {"_target_": method} | (of_method or {})
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    cost = {
        "parameters": {"total": 1_234_567, "without_embeddings": 34_567},
        "model_bytes": 4_900_000,
        "training_seconds": 12.0,
    }
    cost["latency"] = {"p50_ms": 0.5, "threads": 2}
    agreement = float((logits.argmax(1) == teacher.argmax(1)).mean())
    metrics = {**choices, **cost, "seed": seed, "padding_share": 0.03, "weights": "best on validation"}
    metrics |= {"test": {"rows": ROWS, "agreement": agreement}, "teacher_cost": {"name": "asset:big", **cost}}
    (path / "metrics.json").write_text(json.dumps(metrics))
    environment = {"data": {"test": test}, "teacher": {"checksum": "abc"}}
    (path / "environment.json").write_text(json.dumps(environment))
    RunDirectory(path).set_status("done")


def printed(capsys, *folders) -> list[str]:
    assert main(["report", *map(str, folders)]) == 0
    return capsys.readouterr().out.splitlines()


def findings(lines: list[str]) -> dict[str, str]:
    """Pair of runs -> points, p-value and verdict, as printed."""
    found = {}
    for line in lines:
        if " - " in line and "[" in line:
            pair, figures = re.split(r"\s+(?=[+-]\d)", line, maxsplit=1)
            found[pair] = " ".join(figures.split())
    return found


def test_table_and_verdicts(tmp_path, capsys):
    write_run(tmp_path / "a", "supervised", "random", correct=130)
    write_run(tmp_path / "b", "supervised", "pca", correct=160)
    write_run(tmp_path / "c", "distillation", "random", correct=130, shift=5)
    write_run(tmp_path / "d", "distillation", "pca", correct=170)
    lines = printed(capsys, tmp_path)
    assert max(map(len, lines)) <= 80
    rows = {line.split("[")[0].strip(): line for line in lines if "[" in line and line[0] != "*"}
    assert "teacher            90.0" in rows or any(key.startswith("teacher") and key.endswith("90.0") for key in rows)
    assert any(key.startswith("supervised pca") and key.endswith("80.0") for key in rows)
    assert "1.23 (0.03)" in "".join(lines)
    found = findings(lines)
    assert found.pop("supervised pca - supervised random").startswith("+15.0 [")
    # 10 rows won and none lost: 2 / 2^10, twice over for the two comparisons of its block.
    assert re.fullmatch(r"\+5\.0 \[\+[\d.]+, \+[\d.]+\] 0\.0039 better", found.pop("distillation pca - supervised pca"))
    assert found.pop("distillation random - supervised random").endswith(" 1 not decided")
    assert found.pop("distillation pca - distillation random").endswith("better")
    assert not found
    assert "the difference is not significant on this test set" in lines[-1]


def test_worse_is_called_worse(tmp_path, capsys):
    write_run(tmp_path / "b", "supervised", correct=170)
    write_run(tmp_path / "d", "distillation", correct=150)
    (finding,) = findings(printed(capsys, tmp_path)).values()
    assert finding.startswith("-10.0 [") and finding.endswith("worse")


def test_what_differs_names_the_row_and_breaks_the_match(tmp_path, capsys):
    write_run(tmp_path / "a", "distillation", temperature=1.0)
    write_run(tmp_path / "b", "distillation", temperature=4.0)
    write_run(tmp_path / "c", "supervised", seed=1)
    write_run(tmp_path / "d", "supervised", label_smoothing=0.1)
    lines = printed(capsys, tmp_path)
    text = " ".join(" ".join(lines).split())
    assert "temperature=1 " in text and "temperature=4 " in text and "label_smoothing=0.1" in text and "seed=1" in text
    assert findings(lines) == {}, "neither baseline shares seed and label smoothing with the distilled runs"


def test_a_baseline_reads_no_temperature(tmp_path, capsys):
    """One supervised run is the baseline of every temperature, and its copies make one row."""
    write_run(tmp_path / "a", "distillation", temperature=1.0)
    write_run(tmp_path / "b", "distillation", temperature=4.0)
    write_run(tmp_path / "c", "supervised", temperature=1.0)
    write_run(tmp_path / "d", "supervised", temperature=4.0)
    lines = printed(capsys, tmp_path)
    assert sum(line.startswith("supervised") for line in lines) == 1
    assert len(findings(lines)) == 2


def test_each_test_set_has_its_own_table(tmp_path, capsys):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", "distillation")
    write_run(tmp_path / "c", "distillation", test="others")
    lines = printed(capsys, tmp_path)
    assert sum(line.startswith("student dan on files") for line in lines) == 2
    assert len(findings(lines)) == 1, "runs on other rows are not compared"


def test_unfinished_and_damaged_runs_are_left_out_and_named(tmp_path, capsys):
    write_run(tmp_path / "good")
    write_run(tmp_path / "cut")
    (tmp_path / "cut" / "predictions.parquet").write_bytes(b"PAR1")
    (tmp_path / "half").mkdir()
    RunDirectory(tmp_path / "half").set_status("running")
    assert main(["report", str(tmp_path)]) == 0
    error = capsys.readouterr().err
    assert "left out: 1 run not finished" in error and "cut' is damaged" in error


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_nothing_to_report(tmp_path, folder, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / folder)]) == 2
    assert "found none" in capsys.readouterr().err


def test_methods_have_names_and_their_gains_are_told_apart(tmp_path, capsys):
    write_run(tmp_path / "a", "supervised", correct=130)
    write_run(tmp_path / "b", "distillation", correct=150)
    write_run(tmp_path / "c", "hints", correct=160, of_method={"layers": "top"})
    mapper = {"_target_": "kd.features.mapper.Linear"}
    write_run(tmp_path / "d", "composition", correct=175, of_method={"layer": None}, mapper=mapper)
    write_run(tmp_path / "e", "joint", correct=155)
    inside = {"encoder": 1_000_000, "mapper": 10, "body": 20, "layer": 6, "encoder_ms": 0.4}
    add_to_metrics(tmp_path / "d", teacher_inside=inside)
    teacher = {"validation_accuracy_before": 0.85, "validation_accuracy": 0.80}
    add_to_metrics(tmp_path / "e", partners={"teacher": teacher}, validation={"rows": 1000})
    lines = printed(capsys, tmp_path)
    text = " ".join(" ".join(lines).split())
    assert "composition: it contains the teacher up to layer 6: 1.00 M parameters, 81% of all" in text
    assert "0.40 ms, 80% of its p50" in text
    assert "joint: its teacher went from 85.0 to 80.0 % on validation in joint training: it became worse" in text
    found = findings(lines)
    assert {pair for pair in found if pair.endswith(" - supervised")} == {
        *("distillation - supervised", "hints - supervised", "composition - supervised", "joint - supervised")
    }
    assert {"hints - distillation", "composition - distillation", "joint - distillation"} <= set(found)


def test_compositions_fitted_towards_other_embeddings_are_two_rows(tmp_path, capsys):
    for mapper, rows in (("mapper.Linear", 1), ("fitted_mapper.Procrustes", 2)):
        for start in ("pca", "random"):
            write_run(tmp_path / mapper / start, "composition", start, mapper={"_target_": f"kd.features.{mapper}"})
        lines = printed(capsys, tmp_path / mapper)
        assert sum(line.startswith("composition") and " - " not in line and "[" in line for line in lines) == rows


# The two tests below pass once `RunDirectory.config` gives old runs the names of today (the table of old names).
@pytest.mark.parametrize(("direction", "method"), [("to_teacher", "hints"), ("to_student", "composition")])
def test_a_run_of_before_has_the_names_of_today(tmp_path, capsys, direction, method):
    """Feature mapping was one method with a direction, and all options of both directions stood in its file."""
    both = {"layer": None, "layers": "top", "feature_epochs": 0, "direction": direction}
    old = {"_target_": f"kd.methods.feature_mapping.{direction}", "mapper_learning_rate": None, **both}
    mapper = {"_target_": "kd.features.mapper.Linear"}
    write_run(tmp_path / "old", "feature_mapping", correct=170, of_method=old, mapper=mapper)
    write_run(tmp_path / "supervised", "supervised", correct=130)
    assert set(findings(printed(capsys, tmp_path))) == {f"{method} - supervised"}


def test_the_gain_of_peers_is_not_called_the_teachers(tmp_path, capsys):
    write_run(tmp_path / "a", "supervised", correct=130)
    write_run(tmp_path / "b", "joint", correct=150)
    for run in ("a", "b"):
        path = tmp_path / run / "environment.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"teacher": None}))
    text = " ".join(" ".join(printed(capsys, tmp_path)).split())
    assert "gain of the peers over supervised training" in text and "gain of the teacher" not in text


def add_to_metrics(run: Path, **figures) -> None:
    path = run / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | figures))
