"""The search of a learning rate before the training."""

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from kd.training.learning_rate import KEPT, single_losses, steepest
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


RATES = np.geomspace(1e-6, 1e-1, 100)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("best", [1e-4, 1e-3, 1e-2])
def test_the_steepest_point_of_a_known_curve_is_found(best, noise):
    """The loss falls around a rate from 0.7 to 0.2, and grows without limit from 30 times this rate on."""
    falls = 0.5 / (1 + np.exp(-2 * (np.log(RATES) - np.log(best))))
    curve = 0.7 - falls + np.clip(RATES / (30 * best) - 1, 0, 5)
    for seed in range(20):
        found = steepest(RATES, curve + noise * np.random.default_rng(seed).standard_normal(100))
        assert found is not None and best / 3 < found < best * 3


def test_no_rate_is_found_where_the_loss_does_not_fall():
    noise = 0.05 * np.random.default_rng(0).standard_normal((50, 100))
    assert all(steepest(RATES, 0.7 + 10 * RATES + one) is None for one in noise)
    assert steepest(RATES[:5], -RATES[:5]) is None


def test_single_losses_are_those_of_the_steps():
    losses = np.random.default_rng(0).random(100)
    mean, shown = 0.0, []
    for step, loss in enumerate(losses, start=1):
        mean = KEPT * mean + (1 - KEPT) * loss
        shown.append(mean / (1 - KEPT ** (step + 1)))
    np.testing.assert_allclose(single_losses(np.array(shown)), losses)
