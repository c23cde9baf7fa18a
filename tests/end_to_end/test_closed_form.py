"""The bag of n-grams and the majority from the command line: trained, read by every command, compared, refused."""

import json
import re
import shlex
from pathlib import Path

import pandas
import pytest
import transformers

from kd.run.directory import RunDirectory
from tests.conftest import run_kd


@pytest.fixture
def of_bag(options) -> list[str]:
    """What the runs have in common; the bag has no word vectors."""
    return [option for option in options if not option.startswith("student.")]


def test_a_bag_is_a_run_that_every_command_reads(of_bag, capsys):
    run = RunDirectory(Path("outputs/bag"))
    command = ["train", *of_bag, "student=bag", "method=supervised", "hydra.run.dir=outputs/bag"]
    assert run_kd(*command) == 0
    figures = run.metrics()
    assert figures["weights"] == "fitted" and figures["training_seconds"] > 0
    assert figures["test"]["accuracy"] > 0.9 and figures["test"]["agreement"] > 0.8, "these reviews are easy"
    curve = pandas.read_csv(run.path / "metrics.csv")
    assert curve["val/accuracy"].tolist() == [pytest.approx(figures["validation"]["accuracy"])]
    capsys.readouterr()
    assert run_kd("evaluate", run.path, "--split", "test", "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(figures["test"]["accuracy"])
    assert run_kd("predict", run.path, "the film is wonderful") == 0
    (piped,) = transformers.pipeline("text-classification", model=str(run.model))("the film is wonderful")
    assert f",{piped['label']}," in capsys.readouterr().out
    # What it does not read may change, and the run is done all the same.
    before = run.predictions_file.read_bytes()
    others = ["optim.optimizer.lr=0.5", "data.batch_size=8", "embeddings=random", "callbacks=[]", "seed=0"]
    assert run_kd(*[part for part in command if not part.startswith(("data.batch", "callbacks"))], *others) == 0
    assert "already done" in capsys.readouterr().out and run.predictions_file.read_bytes() == before
    assert run_kd("reproduce", run.path) == 0
    assert run_kd(*command, "student.ngrams=1") == 0
    assert run.predictions_file.read_bytes() != before


@pytest.mark.slow
def test_a_bag_learns_from_the_teacher_and_from_rows_without_a_label(of_bag, tmp_path):
    (tmp_path / "extra.csv").write_text("text\nzebra wonderful superb\nzebra wonderful great\n")
    found = {}
    for name, more in (
        ("gold", ["method=supervised"]),
        ("taught", []),
        ("hot", ["temperature=8"]),
        ("live", ["cache.use=false"]),
        ("more", [f"data.unlabelled={tmp_path / 'extra.csv'}"]),
    ):
        assert run_kd("train", *of_bag, "student=bag", *more, f"hydra.run.dir=outputs/{name}") == 0
        found[name] = RunDirectory(Path("outputs") / name)
    logits = {name: pandas.read_parquet(run.predictions_file)["logits"].explode() for name, run in found.items()}
    assert found["taught"].metrics()["teacher_cost"]["parameters"]["total"] > 0
    assert (logits["taught"] != logits["gold"]).any()
    assert logits["hot"].abs().mean() < logits["taught"].abs().mean(), "hot targets are nearer to each other"
    assert (logits["live"] - logits["taught"]).abs().max() < 1e-3
    words = {
        name: json.loads((run.model / "tokenizer.json").read_text())["model"]["vocab"] for name, run in found.items()
    }
    assert "zebra" in words["more"] and "zebra" not in words["taught"]


@pytest.mark.slow
def test_a_report_compares_each_student_with_the_bag(of_bag, capsys):
    alone = [*of_bag, "embeddings=random", "method=supervised"]
    for seed in (0, 1):
        more = ["student=dan", f"seed={seed}", f"hydra.run.dir=outputs/sweep/dan-{seed}"]
        assert run_kd("train", *alone, *more) == 0
    capsys.readouterr()
    assert run_kd("report", "outputs/sweep") == 0
    printed = " ".join(capsys.readouterr().out.split())
    (command,) = re.findall(r"This command trains one: (kd train student=bag .*? hydra.run.dir=\S+)", printed)
    assert "embeddings" not in command and "data.max_length=24" in command
    assert run_kd(*shlex.split(command)[1:]) == 0
    assert run_kd("train", *alone, "student=majority", "hydra.run.dir=outputs/sweep/majority") == 0
    capsys.readouterr()
    assert run_kd("report", "outputs/sweep") == 0
    printed = capsys.readouterr().out
    for row in ("supervised", "supervised bag", "supervised majority"):
        assert re.search(rf"^{row} +\d+\.\d", printed, re.MULTILINE), row
    assert re.search(r"^supervised - supervised bag +[+-]\d", printed, re.MULTILINE), "one bag for both seeds"
    flowing = " ".join(printed.split())
    assert "without any network; 0 of 1 beat it. Supervised" in flowing and "This command trains one" not in flowing
    assert max(map(len, printed.splitlines())) <= 80


REFUSED = {
    "hints": (["method=hints", "loss=[hint]"], "student=bag is fitted in closed form, .* got method=hints; choose"),
    "composition": (["method=composition"], "student=bag is fitted in closed form, .* got method=composition"),
    "joint": (["method=joint", "cache.use=false"], "student=bag is fitted in closed form, .* got method=joint"),
    "another loss": (["loss=[dkd]"], r"student=bag is fitted to soft targets, .* leave loss=\[soft_target\]"),
    "a schedule": (["balance/alpha=linear"], "of which it reads alpha and temperature; leave"),
    "r_drop": (["method.r_drop=1"], "method.r_drop is about the training of a network, and student=bag is fitted in"),
    "mixup": (["method=supervised", "method.mixup=0.2"], "method.mixup is about the training of a network"),
    "devices": (["trainer.devices=2"], "student=bag is fitted by one process; set trainer.devices=1"),
    "stream": (
        ["data.stream=true", "data.unlabelled=x.csv"],
        "student=bag is fitted to all rows at once; set data.str",
    ),
    "long n-grams": (["student.ngrams=70"], "student.ngrams must be at most"),
    "word vectors": (["student.embedding_size=16"], "embedding_size"),
    "rare": (["student.min_count=999", "method=supervised"], "student.min_count=999 leaves no n-gram"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_do_gets_one_sentence(of_bag, name, capsys, monkeypatch):
    monkeypatch.delenv("KD_DEBUG", raising=False)
    changes, message = REFUSED[name]
    assert run_kd("train", *of_bag, "student=bag", *changes) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error and error.count("kd train: ") == 1
