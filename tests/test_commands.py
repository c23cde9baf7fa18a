"""The commands from end to end, in this process, on a tiny teacher and a handful of reviews."""

import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet
import pytest
import torch
import transformers

from kd.cli import COMMANDS, main
from kd.run import RunDirectory
from tests.conftest import make_teacher


@pytest.fixture
def options(reviews_file, teacher_folder, tmp_path, monkeypatch) -> list[str]:
    """What every tiny run has in common."""
    monkeypatch.chdir(tmp_path)
    return [
        "data=files",
        f"data.path={reviews_file}",
        "data.label_names=[negative,positive]",
        "data.max_length=24",
        "data.batch_size=16",
        "data.validation_share=0.2",
        "data.test_share=0.2",
        "teacher=hf",
        f"teacher.name_or_path={teacher_folder}",
        "teacher.epochs=8",
        "teacher.batch_size=8",
        "teacher.learning_rate=3e-3",
        "student.embedding_size=16",
        "trainer=cpu",
        "trainer.max_epochs=2",
        "callbacks=[checkpoint]",
        "threads=1",
    ]


def run_kd(*arguments: str) -> int:
    return main(list(map(str, arguments)))


def only_run(folder: Path = Path("outputs/runs")) -> RunDirectory:
    (status,) = folder.rglob("status.json")
    return RunDirectory(status.parent)


@pytest.mark.parametrize("student", ["mlp", "dan", "textcnn", "bilstm"])
def test_train_leaves_a_whole_run_that_every_command_reads(options, student, capsys):
    assert run_kd("train", *options, f"student={student}") == 0
    run = only_run()
    assert run.status()["state"] == "done"
    figures = run.metrics()
    assert figures["parameters"]["total"] > figures["parameters"]["without_embeddings"] > 0
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["teacher"]["validation_accuracy"] > 0.9, "the tiny teacher learns these reviews"
    curves = pandas.read_csv(run.path / "metrics.csv")
    assert {"train/loss/total", "train/loss/soft_target", "val/accuracy", "val/loss"} <= set(curves)

    table = pyarrow.parquet.read_table(run.predictions_file).to_pandas()
    test = table[table["split"] == "test"]
    accuracy = (np.stack(test["logits"]).argmax(1) == test["label"]).mean()
    assert figures["test"]["accuracy"] == pytest.approx(accuracy)
    agreement = (np.stack(test["logits"]).argmax(1) == np.stack(test["teacher_logits"]).argmax(1)).mean()
    assert figures["test"]["agreement"] == pytest.approx(agreement)

    capsys.readouterr()
    assert run_kd("evaluate", run.path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(accuracy)
    assert run_kd("predict", run.path, "the film is wonderful") == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    (piped,) = transformers.pipeline("text-classification", model=str(run.model))("the film is wonderful")
    assert row["prediction"] == piped["label"]
    assert float(row[f"probability_{piped['label']}"]) == pytest.approx(piped["score"], abs=1e-5)


def test_the_sweep_over_methods_is_the_matched_baseline(options, capsys):
    """The demo's path on a tiny slice: one fine-tuning, one labelling a split, four students, one table."""
    sweep = [*options, "student=dan", "embeddings=random,pca", "hydra.sweep.dir=outputs/sweep"]
    assert run_kd("train", "-m", *sweep, "method=supervised,distillation") == 0
    assert len(list(Path("outputs/teachers").glob("*/teacher.json"))) == 1
    assert len(list(Path("outputs/teacher_cache").glob("*/meta.json"))) == 3
    capsys.readouterr()
    assert run_kd("report", "outputs/sweep") == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for row in ("teacher", "alone random", "alone pca", "distilled random", "distilled pca"):
        assert re.search(rf"^{row} +\d+\.\d \[\d+\.\d, \d+\.\d\]", printed, re.MULTILINE), row
    assert len(re.findall(r"^\* distillation", printed, re.MULTILINE)) == 2
    assert len(re.findall(r"^\* start from the teacher's word table", printed, re.MULTILINE)) == 2
    assert "Padding" in printed


def test_a_second_run_finds_teacher_and_cache(options, caplog):
    assert run_kd("train", *options, "student=dan") == 0
    stamps = {path: path.stat().st_mtime_ns for path in Path("outputs").glob("teacher*/*/*.json")}
    assert run_kd("train", *options, "student=mlp", "seed=1") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("outputs").glob("teacher*/*/*.json")} == stamps
    assert len(stamps) == 4


def test_the_same_seed_gives_the_same_student_whoever_trained_the_teacher(options):
    """Fine-tuning the teacher on the way must not shift the student's start or dropout."""
    for place in ("one", "two"):
        assert run_kd("train", *options, "student=dan", f"hydra.run.dir={place}") == 0
    one, two = (safetensors_of(Path(place)) for place in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert run_kd("train", *options, "student=dan", "hydra.run.dir=three", "seed=1") == 0
    assert not torch.equal(one["head.weight"], safetensors_of(Path("three"))["head.weight"])


def safetensors_of(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / "model" / "model.safetensors")


def test_live_teacher_with_another_tokenizer_gives_the_cached_curve(options):
    common = [*options, "student=mlp", "student.dropout=0", "alpha=1"]
    assert run_kd("train", *common, "hydra.run.dir=cached") == 0
    assert run_kd("train", *common, "hydra.run.dir=live", "cache=false") == 0
    assert not (Path("live") / "checkpoints" / "teacher").exists()
    one, two = (
        pandas.read_csv(Path(place) / "metrics.csv")["train/loss/total"].dropna() for place in ("cached", "live")
    )
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_interrupted_run_goes_on_where_it_was(options, monkeypatch):
    common = [*options, "student=dan", "trainer.max_epochs=3"]
    assert run_kd("train", *common, "hydra.run.dir=whole") == 0
    from kd.methods.base import Method

    start = Method.on_train_epoch_start

    def killed(self):
        if self.current_epoch == 2:
            raise RuntimeError("killed")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(Method, "on_train_epoch_start", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run_kd("train", *common, "hydra.run.dir=broken")
    assert RunDirectory(Path("broken")).status()["state"] == "failed"
    assert run_kd("train", *common, "hydra.run.dir=broken") == 0
    one, two = (safetensors_of(Path(place)) for place in ("whole", "broken"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    one, two = (pandas.read_csv(Path(place) / "metrics.csv") for place in ("whole", "broken"))
    pandas.testing.assert_frame_equal(one, two[one.columns], check_exact=False, atol=1e-6)


def test_a_finished_run_is_not_repeated_and_never_overwritten(options, capsys):
    common = [*options, "student=dan", "hydra.run.dir=run"]
    assert run_kd("train", *common) == 0
    stamp = Path("run/metrics.json").stat().st_mtime_ns
    assert run_kd("train", *common) == 0
    assert Path("run/metrics.json").stat().st_mtime_ns == stamp
    assert run_kd("train", *common, "seed=5") == 0
    assert json.loads(Path("run/metrics.json").read_text())["seed"] == 5
    assert json.loads(Path("run/previous/1/metrics.json").read_text())["seed"] == 0


def test_students_without_a_teacher(options):
    alone = [option for option in options if not option.startswith("teacher")]
    choices = ["method=supervised", "teacher=none", "tokenizer=words", "embeddings=random", "student=dan"]
    assert run_kd("train", *alone, *choices) == 0
    assert "agreement" not in only_run().metrics()["test"]
    assert not Path("outputs/teachers").exists()


def test_unlabelled_rows_are_taught_by_the_teacher_alone(options, tmp_path):
    extra = tmp_path / "extra.csv"
    extra.write_text(
        "text\n" + "\n".join(f"the plot is quite moving and {word}" for word in ("odd", "new", "old")) + "\n"
    )
    assert run_kd("train", *options, "student=dan", f"data.unlabelled={extra}", "alpha=1") == 0
    cached = [json.loads(path.read_text()) for path in Path("outputs/teacher_cache").glob("*/meta.json")]
    rows = {meta["split"]: meta["rows"] for meta in cached}
    fine_tuned = json.loads(next(Path("outputs/teachers").glob("*/teacher.json")).read_text())
    assert rows["train"] == fine_tuned["rows"] + 3


def test_a_hugging_face_student_and_a_transformer(options, teacher_folder):
    plain = [option for option in options if "embedding_size" not in option]
    assert run_kd("train", *plain, "student=hf", f"student.name_or_path={teacher_folder}", "hydra.run.dir=hf") == 0
    small = ["student.hidden_size=16", "student.intermediate_size=32", "student.max_position_embeddings=32"]
    assert run_kd("train", *plain, "student=transformer", *small, "hydra.run.dir=small") == 0


def test_predict_keeps_columns_and_streams(options, tmp_path, capsys, monkeypatch):
    assert run_kd("train", *options, "student=dan") == 0
    run = only_run().path
    source = tmp_path / "in.csv"
    source.write_text('id,text,"note, quoted"\n1,the film is awful,"a\nb"\n2,,x\n3,a warm story,y\n')
    monkeypatch.setattr("kd.commands.predict.CHUNK", 2)
    for suffix in ("csv", "jsonl", "parquet"):
        assert run_kd("predict", run, "--file", source, "--out", tmp_path / f"out.{suffix}") == 0
    assert "1 rows without a text" in capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "out.csv").open(newline="")))
    assert [row["id"] for row in rows] == ["1", "2", "3"] and rows[0]["note, quoted"] == "a\nb"
    assert rows[1]["prediction"] == "" and rows[0]["prediction"] in ("negative", "positive")
    total = float(rows[2]["probability_negative"]) + float(rows[2]["probability_positive"])
    assert total == pytest.approx(1, abs=1e-5)
    again = [json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert again == [rows[0]["prediction"], None, rows[2]["prediction"]]
    stored = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert stored["prediction"].to_pylist() == again


def test_help_is_quick_and_needs_no_torch():
    probe = "import sys, kd.cli; kd.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", f"import sys; sys.argv = ['kd']; {probe}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(f"  {name} " in printed for name in COMMANDS)


# Bad input: one sentence on standard error, exit code 2, no traceback.

MISTAKES = {
    "unknown option": (["studnt=dan"], "Could not override 'studnt'"),
    "unknown choice": (["student=lstm"], "student/lstm.* bilstm"),
    "unknown key": (["student.width=3"], "width"),
    "alpha": (["alpha=2"], r"alpha: expected .* in \[0, 1\], got 2"),
    "temperature": (["temperature=0"], "temperature"),
    "no loss": (["loss=[]"], "needs a transfer term"),
    "wrong column": (["data.text=review"], "has no column 'review'; it has 'text', 'label'"),
    "missing file": (["data.path=nowhere.csv"], "there is no file nowhere.csv"),
    "label outside": (["data.label_names=[good,bad]"], "label '(negative|positive)' is neither"),
    "width over the teacher's": (["student.embedding_size=64"], "teacher's width 32"),
    "no teacher to learn from": (
        ["teacher=none", "tokenizer=words", "embeddings=random"],
        "teacher=none gives none",
    ),
    "teacher from nowhere": (["teacher.name_or_path=no/such-model"], "neither a folder here nor"),
    "decay": (["optim.schedule.decay=step"], "expected one of linear, cosine, constant, got 'step'"),
    "checkpoint of another kind": (["student=hf", "student.name_or_path=nowhere"], "student.name_or_path"),
    "not a number": (["data.batch_size=many"], "data.batch_size"),
    "batch size": (["data.batch_size=0"], "data.batch_size: expected a whole number of at least 1, got 0"),
    "several at once": (["data.batch_size=0", "seed=-1"], "seed: .*; data.batch_size: "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_sentence(options, name, capsys, monkeypatch):
    monkeypatch.delenv("KD_DEBUG", raising=False)
    changes, message = MISTAKES[name]
    keys = {change.split("=")[0] for change in changes}
    dropped = {"student.embedding_size"} if "student=hf" in changes else set()
    if "teacher=none" in changes:
        dropped |= {option.split("=")[0] for option in options if option.startswith("teacher")}
    kept = [option for option in options if option.split("=")[0] not in keys | dropped]
    assert run_kd("train", *kept, *changes) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert re.search(message, error), error
    assert error.count("kd train: ") == 1


def test_a_teacher_with_other_labels_is_refused(options, tmp_path, capsys):
    three = make_teacher(tmp_path / "three", num_labels=3)
    kept = [option for option in options if not option.startswith("teacher.")]
    assert run_kd("train", *kept, f"teacher.name_or_path={three}", "teacher.fine_tune=false") == 2
    assert re.search("has 3 labels, the data has 2", capsys.readouterr().err)


def test_a_teacher_whose_labels_stand_in_another_order_is_refused(options, capsys):
    assert run_kd("train", *options, "student=dan") == 0
    tuned = next(Path("outputs/teachers").glob("*/model"))
    kept = [option for option in options if not option.startswith(("teacher.", "data.label_names"))]
    taken = [f"teacher.name_or_path={tuned}", "teacher.fine_tune=false"]
    assert run_kd("train", *kept, *taken, "data.label_names=[positive,negative]") == 2
    assert "in the order [negative, positive]" in capsys.readouterr().err
    assert run_kd("train", *kept, *taken, "data.label_names=[negative,positive]", "student=dan") == 0


def test_debug_shows_the_traceback(options, monkeypatch):
    monkeypatch.setenv("KD_DEBUG", "1")
    with pytest.raises(ValueError, match="alpha"):
        run_kd("train", *options, "alpha=2")


def test_one_bad_job_does_not_stop_the_sweep(options, capsys):
    assert run_kd("train", "-m", *options, "student=dan", "alpha=2,0.5", "hydra.sweep.dir=sweep") == 2
    assert "1 of 2 jobs failed" in capsys.readouterr().err
    states = {path.parent.name: json.loads(path.read_text())["state"] for path in Path("sweep").glob("*/status.json")}
    assert states == {"0": "failed", "1": "done"}


def test_unknown_command(capsys):
    assert run_kd("distil") == 2
    assert "there is no command 'distil'; the commands are train" in capsys.readouterr().err


def test_two_processes_train_one_teacher(options, tmp_path):
    """As two jobs of a sweep would start: one fine-tunes and labels, the other waits and finds both."""
    command = [sys.executable, "-m", "kd", "train", *options, "student=dan"]
    started = time.time()
    processes = [
        subprocess.Popen(
            [*command, f"seed={seed}", f"hydra.run.dir=run{seed}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in (0, 1)
    ]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert sum("fine-tuning" in text for text in printed) == 1
    assert sum("found the fine-tuned" in text for text in printed) == 1
    assert sum(text.count("labelling") > 0 for text in printed) <= 2 and started
    assert len(list(Path("outputs/teacher_cache").glob("*/meta.json"))) == 3
