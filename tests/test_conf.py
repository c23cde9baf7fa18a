"""Every YAML under conf/ composes, and its keys are its target's arguments: a new file is tested without a new test."""

import inspect
from functools import partial
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from kd.config import build
from kd.config.compose import composed
from kd.config.folder import configuration_folder
from kd.config.make import make
from kd.config.trainer import make_trainer
from kd.contract import Loss
from kd.options.declared import options_of
from kd.options.methods import METHODS
from kd.options.sections import SECTIONS

CONF = configuration_folder()
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
GIVEN_AT_RUN_TIME = {
    "student": {"vocab_size", "num_labels", "pad_token_id"},
    "logger": {"save_dir"},
}


def selection(path: Path) -> list[str]:
    """The overrides that choose this file, with what it leaves for the user to say."""
    if len(path.parts) == 1:
        return []
    group, option = path.parent.as_posix(), path.stem
    value = f"[{option}]" if group in ("loss", "transfer", "callbacks", "logger") else option
    missing = {
        "student/hf": ["student.name_or_path=somewhere"],
        "tokenizer/pretrained": ["tokenizer.name_or_path=somewhere"],
        "teacher/hf": ["teacher.name_or_path=somewhere"],
        "embeddings/vectors": ["embeddings.path=somewhere"],
        "transfer/documents": ["transfer.documents.path=somewhere"],
    }
    return [f"{group}={value}", *missing.get(f"{group}/{option}", [])]


def targets(node, place=""):
    """Every node with a ``_target_``, with its place in the configuration."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield place, node
        for key in node:
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                yield from targets(node[key], f"{place}.{key}" if place else str(key))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_composes_and_keys_fit_the_signature(path):
    config = composed(selection(path))
    found = dict(targets(config))
    assert {"method", "student", "embeddings", "tokenizer", "data", "trainer"} <= set(found)
    for place, node in found.items():
        signature = inspect.signature(METHODS.get(node._target_) or get_object(node._target_))
        keys = {key for key in node if key not in ("_target_", "_partial_", "_convert_")}
        open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        known = GIVEN_AT_RUN_TIME.get(place.split(".")[0], set())
        if place == "data":
            keys -= set(options_of(SECTIONS["data"]))
        if not (open_ended and place == "data"):
            assert keys <= set(signature.parameters), f"{path}: {place} has keys that {node._target_} does not take"
        required = {
            name
            for name, parameter in signature.parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        }
        if node.get("_partial_"):
            required = set()
        assert required <= keys | known, f"{path}: {place} lacks arguments that {node._target_} needs"


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "loss"], ids=str)
def test_losses_wrap_themselves_in_their_name_and_instantiate(path):
    assert list(yaml.safe_load((CONF / path).read_text())) == [path.stem]
    (term,) = build.losses(composed([f"loss=[{path.stem}]", "temperature=3"]), 2).values()
    assert isinstance(term, Loss) and term.weight == 1.0


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "trainer"], ids=str)
def test_trainers_instantiate(path, tmp_path):
    if path.stem in ("gpu", "deepspeed") and not build.torch.cuda.is_available():
        pytest.skip("no GPU here")
    config = composed([f"trainer={path.stem}", "callbacks=[checkpoint,early_stopping,ema,progress]"])
    trainer = make_trainer(config, tmp_path)
    assert trainer.max_epochs == config.trainer.max_epochs
    assert trainer.checkpoint_callback.dirpath == str(tmp_path / "checkpoints")
    assert trainer.logger.log_dir.rstrip("/") == str(tmp_path)


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "optim"], ids=str)
def test_optimizers_and_schedules_instantiate(path):
    config = composed([f"optim={path.stem}"])
    parameters = [build.torch.nn.Parameter(build.torch.zeros(2, 2))]
    optimizer = make(config.optim.optimizer)(parameters)
    schedule = make(config.optim.schedule)
    assert isinstance(schedule, partial)
    assert schedule(optimizer, 10).get_last_lr()


def test_groups_are_what_config_yaml_names():
    defaults = [
        next(iter(entry)).removeprefix("override ")
        for entry in yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
        if isinstance(entry, dict)
    ]
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert {group.split("/")[0] for group in defaults} == folders
    nested = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")} - {"."}
    assert nested - {"hydra/sweeper"} == set(defaults), "the grid stays Hydra's own"


def test_self_stands_first_so_that_an_experiment_overrides():
    assert composed(["experiment=quickstart"]).student._target_ == "kd.models.textcnn.TextCNNConfig"
    assert composed(["experiment=quickstart", "student=dan"]).student._target_ == "kd.models.bow.DANConfig"
