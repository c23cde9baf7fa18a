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
    assert any(key.startswith("alone pca") and key.endswith("80.0") for key in rows)
    assert "1.23 (0.03)" in "".join(lines)
    found = findings(lines)
    assert found.pop("alone pca - alone random").startswith("+15.0 [")
    # 10 rows won and none lost: 2 / 2^10, twice over for the two comparisons of its block.
    assert re.fullmatch(r"\+5\.0 \[\+[\d.]+, \+[\d.]+\] 0\.0039 better", found.pop("distilled pca - alone pca"))
    assert found.pop("distilled random - alone random").endswith(" 1 not decided")
    assert found.pop("distilled pca - distilled random").endswith("better")
    assert not found
    assert "no difference that this test set can show" in lines[-1]


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
    assert sum(line.startswith("alone") for line in lines) == 1
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


def test_ways_have_names_and_what_they_brought_is_told_apart(tmp_path, capsys):
    composed = {"direction": "to_student", "layer": None}
    write_run(tmp_path / "a", "supervised", correct=130)
    write_run(tmp_path / "b", "distillation", correct=150)
    write_run(tmp_path / "c", "feature_mapping", correct=160, of_method={"direction": "to_teacher", "layers": "top"})
    write_run(
        tmp_path / "d",
        "feature_mapping",
        correct=175,
        of_method=composed,
        mapper={"_target_": "kd.features.mapper.Linear"},
    )
    write_run(tmp_path / "e", "joint", correct=155)
    inside = {"encoder": 1_000_000, "mapper": 10, "body": 20, "layer": 6, "encoder_ms": 0.4}
    add_to_metrics(tmp_path / "d", teacher_inside=inside)
    teacher = {"validation_accuracy_before": 0.85, "validation_accuracy": 0.80}
    add_to_metrics(tmp_path / "e", partners={"teacher": teacher}, validation={"rows": 1000})
    lines = printed(capsys, tmp_path)
    text = " ".join(" ".join(lines).split())
    assert "mapped: of the teacher 1.00 M parameters are still in it (layer 6), 81% of all" in text
    assert "0.40 ms, 80% of its p50" in text
    assert "joint: its teacher went from 85.0 to 80.0 % on validation in joint training: dragged down" in text
    found = findings(lines)
    assert {pair for pair in found if pair.endswith(" - alone")} == {
        *("distilled - alone", "hinted - alone", "mapped - alone", "joint - alone")
    }
    assert {"hinted - distilled", "mapped - distilled", "joint - distilled"} <= set(found)


def test_compositions_towards_another_word_table_are_two_rows(tmp_path, capsys):
    for mapper, rows in (("mapper.Linear", 1), ("fitted_mapper.Procrustes", 2)):
        for start in ("pca", "random"):
            node = {"mapper": {"_target_": f"kd.features.{mapper}"}, "of_method": {"direction": "to_student"}}
            write_run(tmp_path / mapper / start, "feature_mapping", start, **node)
        lines = printed(capsys, tmp_path / mapper)
        assert sum(line.startswith("mapped") and " - " not in line and "[" in line for line in lines) == rows


def test_what_peers_brought_is_not_called_the_teachers(tmp_path, capsys):
    write_run(tmp_path / "a", "supervised", correct=130)
    write_run(tmp_path / "b", "joint", correct=150)
    for run in ("a", "b"):
        path = tmp_path / run / "environment.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"teacher": None}))
    text = " ".join(" ".join(printed(capsys, tmp_path)).split())
    assert "its peers brought, over the student alone" in text and "the teacher brought" not in text


def add_to_metrics(run: Path, **figures) -> None:
    path = run / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | figures))
