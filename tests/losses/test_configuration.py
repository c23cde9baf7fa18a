"""Every file of conf/loss names its class and every option of it, with the default of the constructor."""

import inspect
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from kd.contract import Loss
from kd.losses.annealing import Annealing
from kd.losses.attention import AttentionTransfer, MiniLM, MiniLMv2, TinyBertAttention
from kd.losses.contrastive import CRD, CoDIR
from kd.losses.correlation import DIST
from kd.losses.decoupled import DKD, NKD
from kd.losses.hint import PKD, VID, Cosine, Hint
from kd.losses.logits import LogitMSE, ProbabilityMSE, SoftCrossEntropy, SoftTarget
from kd.losses.relation import CKA, RKD, SimilarityPreserving
from kd.losses.reverse import JensenShannon, ReverseKL, SymmetricCrossEntropy
from kd.losses.standardised import Standardised
from kd.options.declared import options_of

FOLDER = Path(__file__).parents[2] / "conf" / "loss"
CLASSES = {
    "annealing": Annealing,
    "attention_transfer": AttentionTransfer,
    "cka": CKA,
    "codir": CoDIR,
    "cosine": Cosine,
    "crd": CRD,
    "dist": DIST,
    "dkd": DKD,
    "hint": Hint,
    "jensen_shannon": JensenShannon,
    "logit_mse": LogitMSE,
    "minilm": MiniLM,
    "minilm_v2": MiniLMv2,
    "nkd": NKD,
    "pkd": PKD,
    "probability_mse": ProbabilityMSE,
    "reverse_kl": ReverseKL,
    "rkd": RKD,
    "similarity": SimilarityPreserving,
    "soft_cross_entropy": SoftCrossEntropy,
    "soft_cross_entropy_per_label": SoftCrossEntropy,
    "soft_target": SoftTarget,
    "standardised": Standardised,
    "symmetric_cross_entropy": SymmetricCrossEntropy,
    "tinybert_attention": TinyBertAttention,
    "tinybert_embeddings": Hint,
    "tinybert_hidden": Hint,
    "vid": VID,
}
OWN = {
    "soft_cross_entropy_per_label": {"normalisation": "labels"},
    "tinybert_hidden": {"level": "token", "layers": "uniform"},
    "tinybert_embeddings": {"level": "token", "layers": [[0, 0]]},
}
"""Where a file is a variant of a class, not its default."""


def test_every_file_is_here():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == list(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_yaml_names_every_option(name):
    config = OmegaConf.create({"temperature": 3.0, "loss": OmegaConf.load(FOLDER / f"{name}.yaml")})
    assert list(config.loss) == [name]
    node = config.loss[name]
    loss = hydra.utils.instantiate(node, _convert_="all")
    assert type(loss) is CLASSES[name] and isinstance(loss, Loss)
    parameters = inspect.signature(CLASSES[name]).parameters
    assert set(node) - {"_target_"} == set(parameters)
    expected = {option: parameter.default for option, parameter in parameters.items()} | OWN.get(name, {})
    if "temperature" in parameters:
        expected["temperature"] = 3.0
    assert {option: getattr(loss, option) for option in parameters} == expected
    assert loss.weight == 1.0


@pytest.mark.parametrize("name", CLASSES)
def test_every_option_is_declared_with_its_meaning(name):
    options = options_of(CLASSES[name])
    assert list(options) == list(inspect.signature(CLASSES[name]).parameters)
    for option in options.values():
        assert option.meaning, option.name
