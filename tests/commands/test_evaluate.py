"""`kd evaluate` from end to end on a tiny student, its teacher and a bag of n-grams."""

import csv
import json

import pytest

from kd.commands.evaluate import main
from kd.errors import KDError
from kd.predictor import Predictor
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher
from kd.storage import evaluation_record
from tests.conftest import make_reviews, run_kd


def write(path, rows, columns=("text", "label", "source", "pair")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.fixture
def other(tmp_path):
    """Reviews of which one source has wrong labels."""
    rows = [
        (text, ("negative", "positive")[label ^ (number % 4 == 0)], "bad" if number % 4 == 0 else "good", number // 2)
        for number, (text, label) in enumerate(make_reviews(200, seed=5))
    ]
    return write(tmp_path / "other.csv", rows)


def test_everything_at_once(pair, other, common_options, fine_tuned, tmp_path, capsys, caplog):
    run = pair / "dan"
    options = (f"outputs={fine_tuned.parent}", f"hydra.run.dir={pair / 'bag'}", "student=bag", "method=supervised")
    kept = (option for option in common_options if not option.startswith("student."))
    assert run_kd("train", *kept, *options) == 0
    test = {"name": "praise", "type": "MFT", "data": ["a warm film", "a funny plot"], "labels": "positive"}
    (tmp_path / "suite.jsonl").write_text(json.dumps(test))
    asked = ("--on", other, "--slice", "source", "--robustness", "--pairs", other, "--suite", tmp_path / "suite.jsonl")
    capsys.readouterr()
    assert run_kd("evaluate", run, *asked) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.split("saved: ")[0].splitlines())) <= 80
    assert "source = bad (50 rows" in printed and "word order" in printed

    found = evaluation_record.read(run)
    own, theirs = found["data"]
    metrics = RunDirectory(run).metrics()["test"]
    assert own["name"] == "test" and own["metrics"]["accuracy"]["value"] == pytest.approx(metrics["accuracy"])
    assert own["teacher"]["agreement"]["value"] == pytest.approx(metrics["agreement"])
    assert own["teacher"]["kl"]["value"] == pytest.approx(metrics["kl"], rel=1e-3)
    assert theirs["difference"]["high"] < 0 and theirs["slices"][0]["name"] == "source = bad"
    assert theirs["teacher"]["accuracy"] > 0.6 and found["bag"] == "bag" and theirs["bag"]["p_value"] <= 1
    assert found["pairs"]["sets"] == 100 and found["suite"][0]["cases"] == 2 and found["temperature"] > 0
    assert len(found["robustness"]) == 5 and RunDirectory(run).test_reads() == 2

    shown = (run / "evaluation" / "index.html").read_text()
    assert all(
        f">{title}<" in shown for title in ("Slices", "Robustness", "Contrast pairs", "Suite", "Confusion matrix")
    )
    assert "Accuracy on other data, against the test rows" in (run / "model" / "README.md").read_text()


def test_a_folder_of_hugging_face_is_measured_with_and_without_a_run(pair, other, tmp_path, capsys, caplog):
    run = RunDirectory(pair / "dan")
    teacher = own_teacher(run)
    assert run_kd("evaluate", teacher, "--on", other, "--out", tmp_path / "out") == 0
    found = evaluation_record.read(tmp_path / "out")
    assert found["temperature"] is None and found["data"][0]["teacher"] is None and len(found["data"]) == 1
    assert "no validation rows" in caplog.text
    assert run_kd("evaluate", teacher, "--run", run.path, "--on", "test", "--out", tmp_path / "out", "--json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = run.metrics()["test"]["teacher"]["accuracy"]
    assert found["data"][0]["metrics"]["accuracy"]["value"] == pytest.approx(wanted)
    assert found["data"][0]["teacher"] is None and found["temperature"] > 0


def test_the_short_table_writes_nothing(pair, other, capsys):
    assert run_kd("evaluate", pair / "dan") == 0 and "on validation, " in capsys.readouterr().out
    assert run_kd("evaluate", pair / "dan", "--file", other, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 200
    assert not (pair / "dan" / "evaluation.json").exists()


MISTAKES = {
    "three.csv": "label 'neutral' is neither one of the label names",
    "empty.csv": "empty",
    "unlabelled.csv": "has no column 'label'",
    "nowhere.csv": "nowhere.csv",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_files_that_do_not_fit_end_with_a_sentence(pair, name, tmp_path, capsys):
    write(tmp_path / "three.csv", [("a film", "positive"), ("a plot", "neutral")], ("text", "label"))
    write(tmp_path / "unlabelled.csv", [("a film", "x")], ("text", "source"))
    (tmp_path / "empty.csv").write_text("")
    assert run_kd("evaluate", pair / "dan", "--on", tmp_path / name) == 2
    assert MISTAKES[name] in capsys.readouterr().err
    assert not (pair / "dan" / "evaluation.json").exists() and RunDirectory(pair / "dan").test_reads() == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--on", "FILE", "--slice", "nothing"], "has no column 'nothing'"),
        (["--on", "FILE", "--slice", "pair"], "--slice pair: expected a column with several values"),
        (["--on", "test", "--slice", "source"], "--slice source: expected a file with such a column"),
        (["--pairs", "FILE", "--pair-column", "id"], "has no column 'id'"),
        (["--pairs", "FILE", "--pair-column", "text"], "expected at least two rows of each pair"),
        (["--on", "FILE", "--teacher", "nowhere"], "nowhere"),
        (["--on", "FILE", "--bag", "RANDOM"], "expected the labels negative, positive"),
        (["--robustness", "--wordnet", "."], "expected WordNet's files"),
        (["--wordnet", "."], "--wordnet: expected --robustness with it"),
        (["--batch-size", "0"], "--batch-size: expected at least 1, got 0"),
    ],
)
def test_mistakes_end_with_a_sentence(pair, teacher_folder, arguments, sentence, tmp_path, capsys):
    places = {"FILE": write(tmp_path / "f.csv", [("a film", "positive", "x", "1"), ("a plot", "negative", "y", "1")])}
    places["RANDOM"] = teacher_folder
    assert run_kd("evaluate", pair / "dan", *(places.get(word, word) for word in arguments)) == 2
    assert sentence in capsys.readouterr().err


def test_models_that_are_no_runs_need_rows_and_a_place(pair, teacher_folder, other):
    with pytest.raises(KDError, match="--out: expected a folder for the figures"):
        main([str(teacher_folder), "--on", str(other)])
    with pytest.raises(KDError, match="--on test: expected a labelled file"):
        main([str(own_teacher(RunDirectory(pair / "dan"))), "--on", "test", "--out", str(other.parent / "out")])
    (pair / "dan" / "evaluation").symlink_to(other.parent)
    with pytest.raises(KDError, match="link"):
        main([str(pair / "dan"), "--on", str(other)])
    RunDirectory(pair / "mlp").set_status("running")
    with pytest.raises(KDError, match="is running"):
        main([str(pair / "mlp"), "--on", str(other)])


def test_training_rows_in_a_file_are_counted_and_validation_has_no_figures_after_its_own_fit(pair, tmp_path, capsys):
    rows = [(text, ("negative", "positive")[label]) for text, label in make_reviews(160)]  # those of the run
    file = write(tmp_path / "known.csv", rows, ("text", "label"))
    assert run_kd("evaluate", pair / "dan", "--on", "validation", file) == 0
    found = evaluation_record.read(pair / "dan")
    assert "130 of 160 texts of known.csv are training or validation rows" in " ".join(found["notes"])
    own, theirs = (one["metrics"] for one in found["data"])
    assert "nll_scaled" not in own and theirs["nll_scaled"]["value"] is not None
    (pair / "dan" / "model" / "README.md").write_text("my own words")
    assert run_kd("evaluate", pair / "dan", "--on", file) == 0
    assert (pair / "dan" / "model" / "README.md").read_text() == "my own words", "a card that someone has changed stays"


def test_labels_that_are_numbers_can_be_named(teacher_folder, other, tmp_path, capsys, caplog):
    asked = ("--on", other, "--out", tmp_path / "out")
    assert run_kd("evaluate", teacher_folder, *asked) == 2
    assert "with --label-names" in caplog.text and "nor an id from 0 to 1" in capsys.readouterr().err
    assert run_kd("evaluate", teacher_folder, *asked, "--label-names", "negative", "positive") == 0
    assert evaluation_record.read(tmp_path / "out")["labels"] == ["negative", "positive"]
    assert run_kd("evaluate", teacher_folder, *asked, "--label-names", "negative") == 2
    assert "--label-names: expected 2 different names, in the order of LABEL_0, LABEL_1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [("--robustness", "--wordnet", "."), ("--slice", "pair"), ("--out", "FILE")],
)
def test_mistakes_are_found_before_a_model_runs(pair, arguments, tmp_path, monkeypatch):
    rows = [("a film", "positive", "x", "1"), ("a plot", "negative", "y", "1")]
    file = write(tmp_path / "f.csv", rows)
    suite = tmp_path / "suite.jsonl"
    suite.write_text(json.dumps({"name": "praise", "type": "MFT", "data": ["a warm film"], "labels": "positive"}))
    monkeypatch.setattr(Predictor, "logits", lambda *_: pytest.fail("a model ran"))
    given = [file if word == "FILE" else word for word in arguments]
    assert run_kd("evaluate", pair / "dan", "--on", file, "--suite", suite, *given) == 2
