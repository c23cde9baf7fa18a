"""The search of a learning rate before the training."""

import json
from pathlib import Path

import pandas
import torch

from tests.conftest import run_kd

SUPERVISED = ["method=supervised", "student=dan", "optim.find=true", "trainer.max_epochs=2"]


def test_a_run_uses_the_rate_that_it_finds(options, capsys):
    assert run_kd("train", *options, *SUPERVISED, "optim.optimizer.lr=0.01", "hydra.run.dir=run") == 0
    assert "where the loss fell fastest" in capsys.readouterr().out
    curve = pandas.read_csv("run/learning_rates.csv")
    found = json.loads(Path("run/metrics.json").read_text())["learning_rate"]
    assert found in set(curve["lr"]) and 1e-5 < found < 1 and found != 0.01
    assert 0.6 < curve["loss"].iloc[0] < 0.8 and curve["loss"].min() < curve["loss"].iloc[0], "it begins at log 2"
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]
    assert {group["initial_lr"] for group in state["param_groups"]} == {found}
    assert not list(Path("run").glob(".lr_find*"))
    status = json.loads(Path("run/status.json").read_text())
    assert "learning_rates.csv" in status["products"]
    assert run_kd("train", *options, *SUPERVISED, "optim.optimizer.lr=0.01", "hydra.run.dir=run") == 0
    assert "already done" in capsys.readouterr().out
    assert run_kd("reproduce", "run") == 0
    assert "reproduced to the last bit" in capsys.readouterr().out
