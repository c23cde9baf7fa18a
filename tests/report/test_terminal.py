"""The table in the terminal, of runs written by hand whose right answers are known."""

import json
import re

from tests.report.written import (
    add_to_metrics,
    findings,
    printed,
    write_run,
)


def test_table_and_verdicts(tmp_path, capsys):
    write_run(tmp_path / "a", "supervised", "random", correct=130)
    write_run(tmp_path / "b", "supervised", "pca", correct=160)
    write_run(tmp_path / "c", "distillation", "random", correct=130, shift=5)
    write_run(tmp_path / "d", "distillation", "pca", correct=170)
    lines = printed(capsys, tmp_path)
    assert max(len(line) for line in lines if "  kd train" not in line) <= 80
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


def test_methods_have_names_and_their_gains_are_told_apart(tmp_path, capsys):
    write_run(tmp_path / "a", "supervised", correct=130)
    write_run(tmp_path / "b", "distillation", correct=150)
    write_run(tmp_path / "c", "hints", correct=160, of_method={"layers": "top"})
    mapper = {"_target_": "kd.features.mapper.Linear"}
    write_run(tmp_path / "d", "composition", correct=175, of_method={"layer": None}, mapper=mapper)
    write_run(tmp_path / "e", "joint", correct=155)
    inside = {"encoder": 1_000_000, "mapper": 10, "body": 20, "layer": 6, "encoder_ms": 0.4}
    add_to_metrics(tmp_path / "d", teacher_inside=inside)
    teacher = {
        "parameters": {"total": 9, "without_embeddings": 9},
        "validation_accuracy_before": 0.85,
        "validation_accuracy": 0.80,
    }
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


def test_the_gain_of_peers_is_not_called_the_teachers(tmp_path, capsys):
    write_run(tmp_path / "a", "supervised", correct=130)
    write_run(tmp_path / "b", "joint", correct=150)
    for run in ("a", "b"):
        path = tmp_path / run / "environment.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"teacher": None}))
    text = " ".join(" ".join(printed(capsys, tmp_path)).split())
    assert "gain of the peers over supervised training" in text and "gain of the teacher" not in text
