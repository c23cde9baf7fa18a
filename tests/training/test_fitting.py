"""What a run says about over- and underfitting, on real runs that do either."""

import random
from pathlib import Path

import pytest

from kd.run.directory import RunDirectory
from kd.training.fitting import curve
from tests.conftest import BAD, GOOD, NEUTRAL, run_kd

COMMON = [
    *("student=dan", "method=supervised", "teacher=none", "tokenizer=words", "embeddings=random", "threads=1"),
    *("student.embedding_size=32", "data=files", "data.path=rows.csv", "data.batch_size=32", "trainer=cpu"),
    *("callbacks=[]", "data.validation_share=0.3"),
]


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Return a function that writes 300 rows; ``noise`` is the share of them with a random label."""
    monkeypatch.chdir(tmp_path)

    def write(noise: float) -> None:
        generator, lines = random.Random(0), ["text,label"]
        for row in range(300):
            label = row % 2
            words = [*generator.choices(NEUTRAL, k=6), generator.choice((BAD, GOOD)[label]), f"word{row}"]
            label = generator.randint(0, 1) if generator.random() < noise else label
            lines.append(f"{' '.join(words)},{('negative', 'positive')[label]}")
        Path("rows.csv").write_text("\n".join(lines) + "\n")

    return write


def trained(*options: str) -> dict:
    assert run_kd("train", *COMMON, *options, "hydra.run.dir=run") == 0
    return RunDirectory(Path("run")).metrics()["fitting"]


def test_many_epochs_on_noise_overfit(rows, capsys):
    rows(noise=1.0)
    found = trained("trainer.max_epochs=60", "optim.optimizer.lr=0.02", "student.dropout=0.1")
    assert found["verdict"] == "overfitting" and found["gap"] > 0.1 and found["train_accuracy"] > 0.7
    for words in ("the validation loss rose from", "labelled rows", "student.dropout=0.2", "early_stopping"):
        assert words in found["sentence"]
    assert "overfitting: Training rows" in capsys.readouterr().out


def test_one_epoch_at_a_tiny_rate_underfits(rows):
    rows(noise=0.0)
    found = trained("trainer.max_epochs=1", "optim.optimizer.lr=1e-6")
    assert found["verdict"] == "underfitting" and "next to nothing" in found["sentence"]
    assert "trainer.max_epochs=2" in found["sentence"] and "now 1e-06" in found["sentence"]


def test_a_run_that_is_cut_short_underfits(rows):
    rows(noise=0.0)
    found = trained("trainer.max_epochs=5", "optim.optimizer.lr=0.01", "student.dropout=0.0")
    assert found["verdict"] == "underfitting" and "still getting better" in found["sentence"], found
    assert found["epochs"] == found["best_epoch"] == 5


def test_easy_rows_fit(rows):
    rows(noise=0.0)
    twenty = ["trainer.max_epochs=40", "+trainer.check_val_every_n_epoch=2"]
    found = trained(*twenty, "optim.optimizer.lr=0.02", "callbacks=[checkpoint]")
    assert found["verdict"] == "neither" and abs(found["gap"]) < 0.1
    assert found["epochs"] == 40 and found["best_epoch"] % 2 == 0, "epochs are counted, not validations"


def test_no_curve(tmp_path):
    assert curve(tmp_path / "metrics.csv", "val/loss") == ([], [])
    (tmp_path / "metrics.csv").write_text("epoch,step,val/loss\n0,1,\n0,2,0.5\n3,8,0.25\n")
    assert curve(tmp_path / "metrics.csv", "val/loss") == ([0.5, 0.25], [1, 4])
    assert curve(tmp_path / "metrics.csv", "x") == ([], [])
