"""``kd export``, ``kd benchmark`` and the model card of a trained run."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from kd.cli import main
from kd.commands.export import given
from kd.errors import KDError
from kd.predictor import Predictor
from kd.report.model_card import model_card
from kd.run.directory import RunDirectory


@pytest.fixture(scope="module")
def run(common_options, fine_tuned, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("exporting") / "run"
    options = [*common_options, f"outputs={fine_tuned.parent}", f"hydra.run.dir={place}"]
    assert main(["train", *map(str, options), "student=dan", "method=distillation"]) == 0
    return place


def test_the_card_names_what_was_found(run):
    card = (run / "model" / "README.md").read_text()
    assert card == model_card(RunDirectory.finished(run))
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{100 * metrics['test']['accuracy']:.1f} % (" in card and "with `method=distillation` and seed 0" in card
    for said in ("model-index:", "## Calibration", "ms (median;", "import kd  # registers", "Its teacher is `"):
        assert said in card


def test_exports_are_checked_and_classify(run, capsys):
    assert main(["export", str(run), "--to", "onnx,int8"]) == 0
    printed = capsys.readouterr().out
    assert "int8 (dynamic)" in printed and "checked on" in printed
    about = json.loads((run / "exports" / "onnx" / "export.json").read_text())
    assert about["check"]["flips"] == 0 and about["check"]["accuracy_before"] == about["check"]["accuracy_after"]
    assert (
        about["check"]["agreement_before"] == about["check"]["agreement_after"] > 0
        and about["source"]["method"] == "distillation"
    )
    answers = []
    for path in (run, run / "exports" / "onnx"):
        assert main(["predict", str(path), "a very dull film"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0][:60] == answers[1][:60]
    assert main(["export", str(run / "exports" / "onnx")]) == 2
    assert "is an export already; give the run that it was made from" in capsys.readouterr().err


def test_the_labels_of_a_file_are_read(run, tmp_path, capsys):
    (tmp_path / "gold.csv").write_text("words,gold,label\na dull film,negative,x\na warm film,,y\na plot,positive,z\n")
    options = Namespace(run=run / "model", file=tmp_path / "gold.csv", text="words", label="gold")
    rows, texts, source = given(options, Predictor.load(options.run))
    assert rows.texts == texts == ["a dull film", "a warm film", "a plot"] and source == {"model": "model"}
    assert rows.labels.tolist() == [0, -100, 1] and rows.teacher is None
    options.label = None  # then the column "label" is only tried
    rows = given(options, Predictor.load(options.run))[0]
    assert rows.texts == texts and set(rows.labels.tolist()) == {-100}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kd export: the labels of ") and "are ignored: " in line
    options.label = "label"
    with pytest.raises(KDError):
        given(options, Predictor.load(options.run))


@pytest.mark.slow
def test_the_benchmark_compares_a_student_with_its_teacher(run, tmp_path, capsys):
    arguments = ["--forms", "eager,onnx", "--turns", "7", "--seconds", "1", "--price", "0.1", "--out", str(tmp_path)]
    assert main(["benchmark", str(run), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "multiply-adds" in printed and "price/M" in printed
    found = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    assert [(row["name"], row["form"]) for row in found] == [
        ("teacher", "eager"),
        ("teacher", "onnx"),
        ("run", "eager"),
        ("run", "onnx"),
    ]
    assert found[1]["resident"] < found[0]["resident"] / 1.5, "an export needs no torch"
    assert found[0]["ratio"] == 1 and found[2]["multiply_adds"] < found[0]["multiply_adds"]
    assert (tmp_path / "benchmark.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "RUN", "--to", "onxn"], "--to: expected some of onnx, int8, fp16, torch"),
        (["export", "MODEL"], "is no run, so it names no texts for the check; give some with --file"),
        (["export", "RUN", "--file", "texts.csv"], "has no column 'text'"),
        (["export", "nowhere"], "nowhere"),
        (["benchmark", "RUN", "--forms", "fast"], "--forms: expected some of eager, compiled, onnx, int8, got 'fast'"),
        (["benchmark", "RUN", "--threads", "0"], "--threads: expected a number above 0, got 0"),
        (["benchmark", "RUN", "--price", "-1"], "--price: expected a number above 0, got -1.0"),
    ],
)
def test_mistakes_are_one_sentence(run, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("texts.csv").write_text("words\na\n")
    named = {"RUN": str(run), "MODEL": str(run / "model")}
    assert main([named.get(word, word) for word in arguments]) == 2
    printed = capsys.readouterr().err
    assert said in printed and len(printed.strip().splitlines()) == 1
