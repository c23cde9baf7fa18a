"""`kd cascade` from end to end on two tiny students, and `kd predict --cascade` and `kd report` after it."""

import csv
import json

import numpy as np
import pytest

from kd.classifier import load
from kd.commands.cascade import parsed
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher
from kd.storage import cascade_record, records
from tests.conftest import make_reviews, run_kd
from tests.report.written import page


@pytest.fixture
def traffic(tmp_path):
    path = tmp_path / "traffic.csv"
    path.write_text("text\n" + "".join(f"{text}\n" for text, _ in make_reviews(400, seed=9)))
    return path


@pytest.mark.slow
def test_the_test_rows_are_halved_and_predict_and_report_use_the_result(pair, tmp_path, capsys):
    run = pair / "dan"
    assert run_kd("cascade", run, "--agreement", "0.7", "--confidence", "0.9") == 0
    printed = capsys.readouterr().out
    record = cascade_record.read(run)
    assert record["source"] == "test" and record["calibration"]["rows"] == record["measured"]["rows"]
    assert record["bound"] >= 0.7 and sum(record["measured"]["answered"]) == record["measured"]["rows"]
    assert f"Threshold {record['threshold']:.4f}: the cascade agrees with the teacher on at least 70 %" in printed
    assert "chosen" in printed and (run / "cascade.png").read_bytes().startswith(b"\x89PNG")
    assert RunDirectory(run).test_reads() == 2

    records.write(run / "cascade.json", {**record, "threshold": 0.9})  # so that both answer
    texts = [text for text, _ in make_reviews(100, seed=5)]
    (tmp_path / "in.csv").write_text("\n".join(["text", *texts, '""']) + "\n")
    assert run_kd("predict", run, "--cascade", "--file", tmp_path / "in.csv", "--out", tmp_path / "out.csv") == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    by = [row["answered_by"] for row in rows]
    assert set(by) == {"student", "teacher", ""} and by[-1] == ""
    scores = [max(float(row["probability_negative"]), float(row["probability_positive"])) for row in rows[:-1]]
    sure = [score >= 0.9 for score, who in zip(scores, by[:-1], strict=True) if who == "student"]
    assert all(sure)

    shown = page(pair)
    assert "Cascades" in shown and "agreement ≥ 70 %, 90 %" in shown
    assert shown.count("<h") == page(pair).count("<h")
    (run / "cascade.json").write_text("{}")
    assert "Cascades" not in page(pair), "a damaged cascade is left out, the run stays"


def test_unlabelled_texts_choose_the_threshold_of_several_students(pair, traffic, capsys, caplog):
    with traffic.open("a") as file:  # texts of the run's own training do not count
        file.writelines(f"{text}\n" for text, _ in make_reviews(160))
    assert run_kd("cascade", pair / "mlp", pair / "dan", "--on", traffic, "--agreement", "0.9") == 0
    out = capsys.readouterr().out
    record = json.loads((pair / "mlp" / "cascade.json").read_text())
    assert record["measured"] is None and record["calibration"]["accuracy"] is None
    assert 400 <= record["calibration"]["rows"] < 440, "the 400, and the run's test rows"
    assert len(record["students"]) == 2 and len(record["calibration"]["answered"]) == 3
    assert "student 2" in out and "a run was trained or selected on" in caplog.text
    assert RunDirectory(pair / "mlp").test_reads() == 1, "the test rows were not read again"
    agrees = 1 - record["calibration"]["differing"] / record["calibration"]["rows"]
    assert agrees > record["bound"] >= 0.9


def test_the_accuracy_is_about_the_rows_on_which_the_teacher_is_right(pair, traffic, capsys, tmp_path):
    assert run_kd("cascade", pair / "dan", "--on", traffic, "--accuracy", "0.9") == 2
    assert "expected calibration rows with labels, found none" in capsys.readouterr().err
    gold = tmp_path / "gold.csv"
    lines = (f"{text},{('negative', 'positive')[label]}\n" for text, label in make_reviews(400, seed=9))
    gold.write_text("words,gold\n" + "".join(lines))
    named = ("--text", "words", "--label", "gold")
    assert run_kd("cascade", pair / "dan", "--on", gold, *named, "--accuracy", "0.9") == 0
    record = json.loads((pair / "dan" / "cascade.json").read_text())["calibration"]
    judged = round(record["rows"] * record["teacher_accuracy"])
    out = capsys.readouterr().out
    assert f"Chosen on {judged} rows of gold.csv" in out and "keeps at least 90 % of the teacher's right answers" in out
    assert record["accuracy"] >= 0.9 * record["teacher_accuracy"]


def test_a_target_that_no_threshold_reaches_leaves_all_to_the_teacher(pair, tmp_path, capsys):
    texts = [text for text, _ in make_reviews(2000, seed=7)]
    own, theirs = (
        load(path).logits(texts).argmax(axis=1) for path in (pair / "mlp", own_teacher(RunDirectory(pair / "mlp")))
    )
    wrong = texts[int(np.flatnonzero(own != theirs)[0])]
    (tmp_path / "hard.csv").write_text("text\n" + f"{wrong}\n" * 60)
    assert run_kd("cascade", pair / "mlp", "--on", tmp_path / "hard.csv", "--agreement", "0.9") == 0
    record = json.loads((pair / "mlp" / "cascade.json").read_text())
    assert record["threshold"] is None and record["calibration"]["answered"] == [0, 60]
    assert "No threshold reaches 90 % with a confidence of 95 %: the teacher answers every" in capsys.readouterr().out
    assert run_kd("predict", pair / "mlp", "--cascade", wrong) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(",teacher")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--agreement", "0.98"], "expected at least 149 calibration rows for a target of 0.98"),
        (["--agreement", "1.5"], "--agreement: expected a share above 0 and below 1, got 1.5"),
        (["--agreement", "0"], "--agreement: expected a share above 0 and below 1, got 0"),
        (["--confidence", "1"], "--confidence: expected a share above 0 and below 1, got 1"),
        (["--batch-size", "0"], "--batch-size: expected at least 1, got 0"),
        (["--teacher", "nowhere"], "nowhere"),
        (["--on", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_mistakes_end_with_a_sentence(pair, arguments, sentence, capsys):
    assert run_kd("cascade", pair / "dan", *arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not (pair / "dan" / "cascade.json").exists()


def test_unfinished_and_strange_runs(pair, teacher_folder, capsys):
    assert run_kd("cascade", pair / "dan", "--teacher", teacher_folder) == 2
    assert "expected the labels negative, positive in every classifier" in capsys.readouterr().err
    RunDirectory(pair / "mlp").set_status("running")
    assert run_kd("cascade", pair / "mlp") == 2
    assert "is running" in capsys.readouterr().err
    assert run_kd("predict", pair / "dan", "--cascade", "a film") == 2
    assert "make one with kd cascade" in capsys.readouterr().err


def test_agreement_and_accuracy_exclude_each_other():
    assert (parsed(["RUN"]).kind, parsed(["RUN"]).target) == ("agreement", 0.98)
    with pytest.raises(SystemExit):
        parsed(["RUN", "--agreement", "0.9", "--accuracy", "0.9"])
    with pytest.raises(KDError, match="--accuracy"):
        parsed(["RUN", "--accuracy", "2"])
