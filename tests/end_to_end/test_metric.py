"""One metric from the checkpoint to the report, and class weights, on rows of which one in ten is positive."""

import random
from pathlib import Path

import pandas
import pytest
import torch

from kd.run.directory import RunDirectory
from kd.run.identity import identity
from tests.conftest import BAD, GOOD, NEUTRAL, run_kd

COMMON = [
    *("student=dan", "method=supervised", "teacher=none", "tokenizer=words", "embeddings=random", "threads=1"),
    *("student.embedding_size=16", "data=files", "data.path=rows.csv", "data.batch_size=32", "trainer=cpu"),
    *("trainer.max_epochs=6", "callbacks=[checkpoint]", "optim.optimizer.lr=0.01"),
]


@pytest.fixture
def skewed(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    generator, lines = random.Random(0), ["text,label"]
    for row in range(400):
        rare = row % 10 == 0
        words = [*generator.choices(NEUTRAL, k=9), generator.choice(GOOD if rare else BAD), str(row)]
        lines.append(f"{' '.join(words)},{'positive' if rare else 'negative'}")
    Path("rows.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_checkpoint_and_the_report_follow_the_metric(skewed, capsys):
    for name in ("accuracy", "auroc"):
        assert run_kd("train", *COMMON, f"metric={name}", f"hydra.run.dir=runs/{name}") == 0
        run, curve = RunDirectory(Path("runs") / name), pandas.read_csv(f"runs/{name}/metrics.csv")
        curve = curve.dropna(subset="val/auroc")
        best = curve.loc[curve[f"val/{name}"].idxmax()]
        figures = run.metrics()["validation"]
        assert figures[name] == pytest.approx(best[f"val/{name}"], abs=1e-6)
        assert torch.load(run.checkpoints / "best.ckpt", weights_only=True)["epoch"] == best["epoch"]
        assert run.objective(run.config()["objective"]) == figures[name]
        for metric in ("macro_f1", "balanced_accuracy", "auroc"):
            assert figures[metric] == pytest.approx(best[f"val/{metric}"], abs=1e-5)
    old = RunDirectory(Path("runs/accuracy")).config()
    without = {key: value for key, value in old.items() if key not in ("metric", "class_weights")}
    assert identity(without) == identity(old), "a run from before the options keeps its identity"
    capsys.readouterr()
    assert run_kd("evaluate", "runs/auroc") == 0
    printed = capsys.readouterr().out
    assert "AUROC" in printed and f"{figures['auroc']:.4f}" in printed
    assert run_kd("report", "runs/auroc") == 0
    printed = capsys.readouterr().out
    assert "AUROC % [95 %]" in printed and "trained with metric=auroc" in printed
    assert run_kd("report", "runs") == 0
    assert "The runs follow different metrics (accuracy and auroc): accuracy is shown." in capsys.readouterr().out


def test_class_weights_find_the_rare_class(skewed, capsys):
    found = {}
    for weights in ("none", "balanced"):
        assert run_kd("train", *COMMON, f"class_weights={weights}", f"hydra.run.dir={weights}", "callbacks=[]") == 0
        found[weights] = RunDirectory(Path(weights)).metrics()["test"]["balanced_accuracy"]
    assert found["balanced"] > found["none"] + 0.1
    assert run_kd("train", *COMMON, "class_weights=[1,2,3]", "hydra.run.dir=wrong") == 2
    assert "expected 2 numbers, one for each of negative, positive, got 3" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["class_weights=[1,-1]", "class_weights=some", "class_weights=[1]", "metric=f1"])
def test_wrong_values_are_refused(wrong, skewed, capsys):
    assert run_kd("train", *COMMON, wrong) == 2
    assert f"{wrong.partition('=')[0]}: expected" in capsys.readouterr().err


def test_a_bag_reads_class_weights_and_no_metric(skewed, capsys):
    bag = [part for part in COMMON if not part.startswith("student")] + ["student=bag", "hydra.run.dir=bag"]
    assert run_kd("train", *bag) == 0 and run_kd("train", *bag, "metric=auroc") == 0
    assert "already done" in capsys.readouterr().out
    before = RunDirectory(Path("bag")).predictions_file.read_bytes()
    assert run_kd("train", *bag, "class_weights=balanced") == 0
    assert RunDirectory(Path("bag")).predictions_file.read_bytes() != before
