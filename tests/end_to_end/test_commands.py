"""The commands from end to end, in this process, on a tiny teacher and a handful of reviews."""

import csv
import json
import re
import signal
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

from kd.run.directory import RunDirectory
from tests.conftest import make_teacher, run_kd


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
    assert run_kd("evaluate", run.path, "--split", "test", "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(accuracy)
    assert run_kd("predict", run.path, "the film is wonderful") == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    (piped,) = transformers.pipeline("text-classification", model=str(run.model))("the film is wonderful")
    assert row["prediction"] == piped["label"]
    assert float(row[f"probability_{piped['label']}"]) == pytest.approx(piped["score"], abs=1e-5)


@pytest.mark.slow
def test_the_sweep_over_methods_is_the_matched_baseline(fresh_options, capsys):
    """The demo's path on a tiny slice: one fine-tuning, one labelling a split, four students, one table."""
    sweep = [*fresh_options, "student=dan", "embeddings=random,pca", "hydra.sweep.dir=outputs/sweep"]
    assert run_kd("train", "-m", *sweep, "method=supervised,distillation", "hydra.launcher.report=true") == 0
    page = Path("outputs/sweep/report/index.html").read_text()
    assert "distillation pca" in page and "kd train -m" in page, "the report of a sweep is made by itself"
    assert len(list(Path("outputs/teachers").glob("*/teacher.json"))) == 1
    assert len(list(Path("outputs/teacher_cache").glob("*/meta.json"))) == 3
    capsys.readouterr()
    assert run_kd("report", "outputs/sweep") == 0
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if not line.startswith("  kd train")) <= 80
    for row in ("teacher", "supervised random", "supervised pca", "distillation random", "distillation pca"):
        assert re.search(rf"^{row} +\d+\.\d \[\d+\.\d, \d+\.\d\]", printed, re.MULTILINE), row
    for pair in (
        "distillation pca - supervised pca",
        "distillation random - supervised random",
        "supervised pca - supervised random",
    ):
        assert re.search(rf"^{pair} +[+-]\d+\.\d \[", printed, re.MULTILINE), pair
    assert "Padding" in printed


def test_a_second_run_finds_teacher_and_cache(options, caplog):
    assert run_kd("train", *options, "student=dan") == 0
    stamps = {path: path.stat().st_mtime_ns for path in Path("outputs").glob("teacher*/*/*.json")}
    assert run_kd("train", *options, "student=mlp", "seed=1") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("outputs").glob("teacher*/*/*.json")} == stamps
    assert len(stamps) == 5, "the teacher, its logits for three splits, and those by text"


def test_the_same_seed_gives_the_same_student_whoever_trained_the_teacher(fresh_options):
    """Fine-tuning the teacher on the way must not shift the student's start or dropout."""
    options = fresh_options
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
    assert run_kd("train", *common, "hydra.run.dir=live", "cache.use=false") == 0
    checkpoint = torch.load("live/checkpoints/last.ckpt", weights_only=True)
    kept = {name.removeprefix("student.") for name in checkpoint["state_dict"] if not name.startswith("objective.")}
    assert kept == set(safetensors_of(Path("live"))), "the student, and no teacher"
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


def test_students_without_a_teacher(fresh_options):
    alone = [option for option in fresh_options if not option.startswith("teacher")]
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


def test_texts_alone_are_enough_where_the_teacher_knows_the_task(options, reviews_file, tmp_path, capsys):
    """No gold label in the training file: the teacher's answers teach, the other files choose and measure."""
    lines = reviews_file.read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join(line.split(",")[0] for line in lines[:100]) + "\n")
    for name, part in (("validation", lines[100:130]), ("test", lines[130:])):
        (tmp_path / f"{name}.csv").write_text("\n".join([lines[0], *part]) + "\n")
    tuned = next(Path("outputs/teachers").glob("*/model"))
    kept = [option for option in options if not option.startswith(("teacher.", "data.path"))]
    kept += [f"data.{name}={tmp_path}/{name}.csv" for name in ("train", "validation", "test")]
    kept += [f"teacher.name_or_path={tuned}", "student=dan"]
    assert run_kd("train", *kept, "teacher.fine_tune=false", "alpha=1") == 0
    assert run_kd("train", *kept, "teacher.fine_tune=true", "alpha=1") == 2
    assert "expected training rows with gold labels, found none" in capsys.readouterr().err


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


# Bad input: one sentence on standard error, exit code 2, no traceback.

MISTAKES = {
    "unknown option": (["studnt=dan"], "studnt: there is no such option"),
    "unknown choice": (["student=lstm"], r"student=lstm: expected .* \(bag, bilstm.* did you mean bilstm"),
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
    "decay": (["optim.schedule.decay=step"], "decay: expected linear, cosine or constant, got 'step'"),
    "checkpoint of another kind": (["student=hf", "student.name_or_path=nowhere"], "student.name_or_path"),
    "not a number": (["data.batch_size=many"], "data.batch_size"),
    "batch size": (["data.batch_size=0"], "data.batch_size: expected a whole number of at least 1, got 0"),
    "no GPU": (["trainer.accelerator=cuda"], "expected a GPU that torch .* can use, found none; take trainer=cpu"),
    "several at once": (["data.batch_size=0", "seed=-1"], "seed: .*; data.batch_size: "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_sentence(options, name, capsys, monkeypatch):
    if name == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
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
    assert error.count("kd train: ") == 1 and "Error executing job" not in error, error


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


@pytest.mark.slow
def test_one_bad_job_does_not_stop_the_sweep(options, capsys):
    assert run_kd("train", "-m", *options, "student=dan", "alpha=2,0.5", "hydra.sweep.dir=sweep") == 2
    assert "1 of 2 jobs failed" in capsys.readouterr().err
    states = {path.parent.name: json.loads(path.read_text())["state"] for path in Path("sweep").glob("*/status.json")}
    assert {name.rpartition("-")[0]: state for name, state in states.items()} == {
        "alpha-2": "failed",
        "alpha-0.5": "done",
    }


def test_the_best_epoch_on_validation_is_kept_and_the_last_is_resumed_from(options):
    """Trained far beyond what helps, so that the best epoch is not the last."""
    longer = ["trainer.max_epochs=8", "student.dropout=0", "student.word_dropout=0", "optim.optimizer.lr=0.05"]
    kept = [option for option in options if not option.startswith("trainer.max_epochs")]
    assert run_kd("train", *kept, *longer, "student=dan", "method=supervised", "seed=3") == 0
    run = only_run()
    curve = pandas.read_csv(run.path / "metrics.csv")["val/accuracy"].dropna().tolist()
    best, last = (torch.load(run.checkpoints / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert len(curve) == 8 and last["epoch"] == 7
    assert best["epoch"] == int(np.argmax(curve)) < 7, curve
    saved = safetensors_of(run.path)
    assert all(torch.equal(value, best["state_dict"][f"student.{name}"]) for name, value in saved.items())
    assert run.metrics()["validation"]["accuracy"] == pytest.approx(max(curve))


def test_the_test_rows_are_encoded_only_after_training(options, monkeypatch):
    from kd.config import build
    from kd.training import train as training

    events = []
    encoded, fit = build.encoded, training.fit
    monkeypatch.setattr(
        build, "encoded", lambda split, *rest, **more: events.append(len(split)) or encoded(split, *rest, **more)
    )
    monkeypatch.setattr(training, "fit", lambda *rest: events.append("fit") or fit(*rest))
    assert run_kd("train", *options, "student=dan", "method=supervised") == 0
    rows = only_run().metrics()["test"]["rows"]
    assert rows not in events[: events.index("fit")] and events.count(rows) == 1, events


def test_alpha_and_label_smoothing_reach_the_objective(options):
    """The logged parts of one step add up."""
    for change, expected in (("alpha=0.3", 0.3), ("alpha=0.9", 0.9)):
        assert (
            run_kd("train", *options, "student=dan", change, f"hydra.run.dir={expected}", "trainer.log_every_n_steps=1")
            == 0
        )
        row = pandas.read_csv(Path(str(expected)) / "metrics.csv").dropna(subset="train/loss/total").iloc[0]
        total = (1 - expected) * row["train/loss/label"] + expected * row["train/loss/soft_target"]
        assert row["train/loss/total"] == pytest.approx(total, rel=1e-5)
    common = [*options, "student=dan", "method=supervised", "trainer.log_every_n_steps=1"]
    assert run_kd("train", *common, "label_smoothing=0.3", "hydra.run.dir=smooth") == 0
    assert run_kd("train", *common, "hydra.run.dir=plain") == 0
    one, two = (
        pandas.read_csv(Path(place) / "metrics.csv")["train/loss/label"].dropna() for place in ("smooth", "plain")
    )
    assert one.iloc[0] != two.iloc[0]


@pytest.mark.parametrize("choices", [["trainer.precision=bf16-mixed"], ["teacher.precision=bf16-mixed"]])
def test_mixed_precision_with_clipping(options, choices):
    assert run_kd("train", *options, "student=bilstm", *choices) == 0


def test_ema_and_early_stopping_by_configuration(options):
    kept = [option for option in options if not option.startswith(("callbacks", "trainer.max_epochs"))]
    more = ["callbacks=[checkpoint,ema,early_stopping]", "callbacks.early_stopping.patience=1", "trainer.max_epochs=30"]
    assert run_kd("train", *kept, *more, "student=dan", "method=supervised", "optim.optimizer.lr=1e-9") == 0
    run = only_run()
    assert pandas.read_csv(run.path / "metrics.csv")["val/accuracy"].count() == 2, (
        "stopped after one epoch without a rise"
    )
    best = torch.load(run.checkpoints / "best.ckpt", weights_only=True)
    assert "current_model_state" in best, "the averaged weights are in front"
    assert all(torch.equal(value, best["state_dict"][f"student.{n}"]) for n, value in safetensors_of(run.path).items())


def test_word_vectors_bring_their_tokenizer(options, tmp_path):
    from tests.conftest import BAD, GOOD, NEUTRAL

    vectors = tmp_path / "vectors.txt"
    generator = np.random.default_rng(0)
    lines = [
        " ".join([word, *(f"{value:.4f}" for value in generator.normal(size=16))]) for word in (*GOOD, *BAD, *NEUTRAL)
    ]
    vectors.write_text("\n".join(lines) + "\n")
    assert run_kd("train", *options, "student=dan", "embeddings=vectors", f"embeddings.path={vectors}") == 0
    assert only_run().metrics()["tokenizer"] == "words"


def test_a_cut_checkpoint_or_changed_rows_start_anew(options, reviews_file, tmp_path, caplog):
    rows = tmp_path / "rows.csv"
    rows.write_text(reviews_file.read_text())
    kept = [option for option in options if not option.startswith("data.path")]
    common = [*kept, f"data.path={rows}", "student=dan", "method=supervised", "hydra.run.dir=run"]
    assert run_kd("train", *common) == 0
    run = RunDirectory(Path("run"))
    run.set_status("running")
    last = run.checkpoints / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    assert run_kd("train", *common) == 0
    assert (run.path / "previous/1/metrics.json").exists() and torch.load(last, weights_only=True)["epoch"] == 1
    rows.write_text("\n".join(rows.read_text().splitlines()[:-30]) + "\n")
    assert run_kd("train", *common) == 0
    assert (run.path / "previous/2").exists(), "a finished run of other rows is not this run"


def test_a_second_process_in_a_run_directory_is_refused(options, capsys):
    from kd.storage.locks import lock

    Path("run").mkdir()
    with lock(Path("run/.run")):
        assert run_kd("train", *options, "student=dan", "hydra.run.dir=run") == 2
    assert ") is training in" in capsys.readouterr().err


@pytest.mark.slow
def test_interrupted_by_a_signal(options):
    command = [
        sys.executable,
        "-m",
        "kd",
        "train",
        *options,
        "student=bilstm",
        "method=supervised",
        "trainer.max_epochs=500",
    ]
    processes = {}
    for code in (130, 143):
        place = [*command, f"hydra.run.dir=stopped{code}"]
        processes[code] = subprocess.Popen(place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for code, sent in ((130, signal.SIGINT), (143, signal.SIGTERM)):
        place, deadline = Path(f"stopped{code}"), time.time() + 60
        while not (place / "checkpoints/last.ckpt").exists() and time.time() < deadline:
            time.sleep(0.05)
        processes[code].send_signal(sent)
        _, error = processes[code].communicate(timeout=60)
        assert processes[code].returncode == code, error
        assert "Traceback" not in error
        assert json.loads((place / "status.json").read_text())["state"] == "failed"


def test_a_teacher_without_a_trained_head_is_refused(options, tmp_path, capsys, teacher_folder):
    from transformers import BertForSequenceClassification

    bare = tmp_path / "bare"
    BertForSequenceClassification.from_pretrained(teacher_folder).bert.save_pretrained(bare)
    (bare / "tokenizer.json").write_bytes((teacher_folder / "tokenizer.json").read_bytes())
    (bare / "tokenizer_config.json").write_bytes((teacher_folder / "tokenizer_config.json").read_bytes())
    kept = [option for option in options if not option.startswith("teacher.name")]
    assert run_kd("train", *kept, f"teacher.name_or_path={bare}", "teacher.fine_tune=false") == 2
    assert "found no weights for classifier" in capsys.readouterr().err


def test_a_damaged_model_gets_one_sentence(options, capsys):
    assert run_kd("train", *options, "student=dan", "method=supervised") == 0
    run = only_run()
    weights = run.model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert run_kd("predict", run.path, "a film") == 2
    assert "model/model.safetensors does not match its checksum" in capsys.readouterr().err
    run.set_status("done")  # as if this were what the run had written
    assert run_kd("predict", run.path, "a film") == 2
    assert "cannot read the model" in capsys.readouterr().err
    run.metrics_file.write_text("{}")
    run.set_status("done")
    assert run_kd("report", run.path) == 2
    assert "lacks the figures" in capsys.readouterr().err


def test_standard_input_and_a_labelled_file(options, tmp_path, capsys, monkeypatch):
    """The same texts give the same answers by every way in."""
    assert run_kd("train", *options, "student=dan", "method=supervised") == 0
    run = only_run()
    texts = ["the plot is awful", "a funny story"]
    capsys.readouterr()
    (tmp_path / "piped").write_text("\ufeff" + "\n".join(texts))
    monkeypatch.setattr("sys.stdin", (tmp_path / "piped").open())
    assert run_kd("predict", run.path) == 0
    piped = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert run_kd("predict", run.path, *texts) == 0
    assert piped == list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["text"] for row in piped] == texts
    answers = [row["prediction"] for row in piped]

    file = tmp_path / "gold.jsonl"
    other = {"negative": "positive", "positive": "negative"}
    rows = [
        {"text": texts[0], "label": answers[0]},
        {"text": texts[1], "label": other[answers[1]]},
        {"text": "", "label": "negative"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert run_kd("evaluate", run.path, "--file", file, "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["accuracy"] == 0.5 and found["rows"] == 2
    assert found["accuracy_interval"] == pytest.approx([0.0945, 0.9055], abs=1e-3)
    assert "1 rows left out" in captured.err and "lines 3" in captured.err


def test_outputs_that_a_format_cannot_hold_are_refused(options, tmp_path, capsys):
    assert run_kd("train", *options, "student=dan", "method=supervised") == 0
    run = only_run().path
    ragged = tmp_path / "ragged.jsonl"
    ragged.write_text('{"text": "a film", "n": 1}\n{"text": "a plot", "n": 1.5, "more": 2}\n')
    assert run_kd("predict", run, "--file", ragged, "--out", tmp_path / "out.csv") == 2
    assert "the key 'more', which the first row lacks" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
    tabs = tmp_path / "tabs.csv"
    tabs.write_text('text\n"a\tfilm"\n')
    assert run_kd("predict", run, "--file", tabs, "--out", tmp_path / "out.tsv") == 2
    assert "a tab or a line end" in capsys.readouterr().err
    header = tmp_path / "header.csv"
    header.write_text("id,text\n")
    for suffix in ("csv", "tsv", "parquet"):
        assert run_kd("predict", run, "--file", header, "--out", tmp_path / f"none.{suffix}") == 0
    assert (tmp_path / "none.csv").read_text() == "id,text,prediction,probability_negative,probability_positive\n"
    assert pyarrow.parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_cache_commands(options, capsys):
    assert run_kd("train", *options, "student=dan") == 0
    capsys.readouterr()
    assert run_kd("cache", "ls") == 0
    listed = capsys.readouterr().out
    places = sorted(path.parent for path in Path("outputs/teacher_cache").glob("*/meta.json"))
    assert all(place.name in listed for place in places) and len(places) == 3
    assert run_kd("cache", "verify") == 0
    content = bytearray((places[0] / "values.npy").read_bytes())
    content[-1] ^= 1
    (places[0] / "values.npy").write_bytes(content)
    assert run_kd("cache", "verify") == 1
    assert f"{places[0].name}  values.npy does not match its checksum" in capsys.readouterr().out
    assert run_kd("cache", "ls") == 0
    listed = capsys.readouterr().out
    assert f"{places[0].name} damaged: values.npy does not match its checksum" in listed and places[1].name in listed
    assert run_kd("cache", "rm") == 2 and run_kd("cache", "rm", "zzz") == 2
    assert run_kd("cache", "rm", places[0].name[:12]) == 0
    assert not places[0].exists() and places[1].exists()
    assert run_kd("cache", "rm", "--all") == 0
    assert not any(place.exists() for place in places)


def test_the_progress_bar_is_one_line_of_80_columns(options, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    kept = [option for option in options if not option.startswith(("data.batch_size", "callbacks"))]
    assert run_kd("train", *kept, "method=supervised", "student=dan", "data.batch_size=1") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch")]
    assert re.search(r" (\d\d+)/\1 .* val/accuracy: \d\.\d{3}$", line), line


def test_a_mistake_names_the_command_as_it_was_typed(options, capsys):
    assert run_kd("cache", "build", *options, "data.limit=0") == 2
    assert capsys.readouterr().err.startswith("kd cache build: ")


@pytest.mark.slow
def test_two_processes_train_one_teacher(fresh_options):
    """As two jobs of a sweep would start: one fine-tunes and labels, the other waits and finds both."""
    command = [sys.executable, "-m", "kd", "train", *fresh_options, "student=dan"]
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
    assert sum("teacher: found" in text for text in printed) == 1
    assert sum(text.count("labelling 90 train rows") for text in printed) <= 1
    assert len(list(Path("outputs/teacher_cache").glob("*/meta.json"))) == 3
