"""`kd compare` before a run and after it, on the tiny runs of the other tests."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kd.comparison import Sample, findings
from kd.comparison.comparison import Comparison
from kd.comparison.sides import Side
from kd.predictor import Predictor
from kd.run.directory import RunDirectory
from kd.storage import comparison_record
from tests.conftest import make_teacher, run_kd
from tests.report.written import page, table


def named(record) -> dict:
    return {one["name"]: one for one in record["findings"]}


def test_after_a_run_the_record_the_page_the_card_and_the_report_have_it(pair, capsys):
    run = pair / "dan"
    assert run_kd("compare", run) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.partition("saved:")[0].splitlines())) <= 80
    found = comparison_record.read(run)
    assert {"label order", "tokenizers", "length", "layers", "width", "CKA", "confidence"} <= set(named(found))
    assert {"calibration", "rows", "capacity gap", "agreement"} <= set(named(found))
    assert len(found["probes"][0]) == 3 and len(found["shares"]) == 3, "the embeddings and two layers"
    assert np.shape(found["similarity"]) == (len(found["probes"][1]), 3)
    assert max(found["probes"][0]) > 0.8, "the label is a word that the teacher has learned"
    assert "100.0 % of the student's" in named(found)["tokenizers"]["sentence"]
    assert sum(group["rows"] for group in found["groups"] if "gold" in group["name"]) == found["rows"]
    apart = [one["divergence"] for one in found["examples"]]
    assert apart == sorted(apart, reverse=True)
    written = (run / "comparison" / "index.html").read_text()
    assert "CKA of all pairs of layers" in written and "Examples most disagreed on" in written
    assert (run / "model" / "README.md").read_text().count(found["sentence"]) == 1
    RunDirectory.finished(run)  # its checksums hold
    assert "Comparisons with the teacher" in page(pair)
    assert float(table(pair, "comparisons")[0]["agree"]) == pytest.approx(found["agreement"])


def test_two_models_on_a_file(pair, teacher_folder, reviews_file, tmp_path):
    out, student = tmp_path / "out", pair / "mlp" / "model"
    assert run_kd("compare", pair / "dan", student, "--on", reviews_file, "--out", out) == 0
    found = comparison_record.read(out)
    assert found["source"] == "reviews.csv" and found["rows"] == 80 and "agreement" in named(found)


def test_before_a_run_nothing_is_trained_and_a_short_length_is_found(options, capsys):
    assert run_kd("compare", "--before", *options, "student=dan", "data.max_length=8", "--out", "before") == 0
    assert "not fine-tuned yet" in capsys.readouterr().out, "the teacher of another length is another one"
    found = named(comparison_record.read(Path("before")))
    assert found["length"]["setting"] == "data.max_length=32" and "confidence" not in found
    assert run_kd("compare", "--before", *options, "student=dan", "method=hints", "loss=[hint]", "--out", "there") == 0
    found = comparison_record.read(Path("there"))
    assert named(found)["layers"]["setting"].startswith("method.layers=[[") and not found["examples"]
    assert "before the training" in named(found)["CKA"]["sentence"] and "confidence" in named(found)


def test_another_label_order_and_a_teacher_that_is_always_sure(fine_tuned, pair, reviews_file):
    lines = [line.rsplit(",", 1) for line in reviews_file.read_text().splitlines()[1:]]
    labels = np.array([int(label == "positive") for _, label in lines])
    sample = Sample(
        *("reviews", [text for text, _ in lines], labels, [text for text, _ in lines], labels),
        *(["negative", "positive"], len(lines)),
    )
    teacher, student = (Predictor.load(place) for place in (next(fine_tuned.glob("*/model")), pair / "dan"))
    head = teacher.model.classifier
    head.weight.data, head.bias.data = 1000 * head.weight.data.flip(0), 1000 * head.bias.data.flip(0)
    sides = (Side("teacher", teacher, sample.label_names), Side("student", student, sample.label_names))
    found = {one.name: one for one in findings(Comparison(*sides, sample, 1.0))}
    assert found["label order"].setting == "data.label_names=[positive, negative]"
    assert found["confidence"].setting is not None and "more than 99 % to 100.0 %" in found["confidence"].sentence


def test_mistakes_end_with_a_sentence(pair, teacher_folder, reviews_file, common_options, tmp_path, capsys):
    other = make_teacher(tmp_path / "other", num_labels=3)
    one_class = tmp_path / "one.csv"
    one_class.write_text("text,label\n" + "\n".join(f"text {n},positive" for n in range(40)))
    unfinished = shutil.copytree(pair / "mlp", tmp_path / "unfinished")
    RunDirectory(unfinished).set_status("running")
    run, out = pair / "dan", ("--out", tmp_path / "nothing")
    alone = [option for option in common_options if not option.startswith("teacher")]
    for arguments, sentence in (
        ([], "expected a run, or a teacher and a student, found 0 words"),
        (["student=dan"], "kd compare --before student=dan compares before a run"),
        ([teacher_folder, *out], "expected a run, found another model in"),
        ([run, teacher_folder, *out], "expected rows to compare on, found none"),
        ([other, run, *out], "expected the labels negative, positive in teacher, found LABEL_0, LABEL_1, LABEL_2"),
        ([run, run, "--on", one_class, *out], "of two classes, found 20 and 20 of 1 (one.csv)"),
        ([run, run, "--on", reviews_file, "--label", "gold", *out], "gold"),
        ([unfinished, *out], "is running"),
        ([tmp_path / "nowhere", *out], "found nothing"),
        (
            ["--before", *alone, "teacher=none", "method=supervised", *out],
            "expected one Hugging Face model, found none",
        ),
        (["--before", "--on", reviews_file, *out], "--on: expected a finished student"),
    ):
        assert run_kd("compare", *arguments) == 2, sentence
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()
