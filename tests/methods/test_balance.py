"""Every file of conf/balance names every option of its class, with the default of the constructor."""

import inspect
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from kd.methods.confidence import Certainty, EveryRow, GoldProbability, OnlyCorrect
from kd.options.declared import options_of

BALANCE = Path(__file__).parents[2] / "conf" / "balance"
FILES = sorted(BALANCE.rglob("*.yaml"))
NAMES = ["label", "soft_target", "hint"]


def test_every_piece_has_a_file():
    assert {str(file.relative_to(BALANCE).with_suffix("")) for file in FILES} == {
        *(f"alpha/{name}" for name in ("constant", "linear", "cosine", "warm_up", "annealing")),
        *(f"temperature/{name}" for name in ("constant", "linear", "cosine", "warm_up", "annealing", "learned")),
        *(f"confidence/{name}" for name in ("none", "gold", "certainty", "correct")),
        *(f"weighting/{name}" for name in ("constant", "uncertainty", "gradnorm", "pcgrad")),
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_yaml_names_every_option_with_its_default(file):
    config = OmegaConf.create({"alpha": 0.25, "temperature": 3.0, "balance": {file.parent.name: OmegaConf.load(file)}})
    node = config.balance[file.parent.name]
    target = hydra.utils.get_class(node._target_)
    parameters = {
        name: parameter for name, parameter in inspect.signature(target).parameters.items() if name != "names"
    }
    if target is EveryRow or issubclass(target, Certainty | GoldProbability | OnlyCorrect):
        parameters = {}
    assert set(node) - {"_target_", "_partial_"} == set(parameters)
    assert all(options_of(target)[name].meaning for name in parameters)
    for name, parameter in parameters.items():
        fixed = not OmegaConf.is_interpolation(node, name) and parameter.default is not parameter.empty
        assert not fixed or node[name] == parameter.default, name
    made = hydra.utils.instantiate(node)
    if file.parent.name == "weighting":
        assert list(made(NAMES).names) == NAMES
    if file.parent.name == "alpha" and file.stem != "annealing":
        assert made.at(1.0) == 0.25
    if file.parent.name == "temperature" and file.stem != "annealing":
        assert torch.as_tensor(made.at(1.0)).item() == pytest.approx(3.0)
