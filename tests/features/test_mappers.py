"""Mappers by name: their YAML files and their specs."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from kd.errors import KDError
from kd.features.mappers import MAPPERS, new_mapper
from kd.options.declared import options_of
from tests.features.conftest import all_specs, build, by_name, texts

FILES = sorted((Path(__file__).parents[2] / "conf" / "mapper").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_yaml_is_its_constructor_and_goes_round_through_a_spec(path):
    node = OmegaConf.load(path)
    mapper = get_class(node._target_)
    assert mapper is MAPPERS[path.stem] and mapper.name == path.stem
    parameters = dict(inspect.signature(mapper).parameters)
    del parameters["in_size"], parameters["out_size"]
    options = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    assert options == {key: parameter.default for key, parameter in parameters.items()}
    assert all(option.meaning for option in options_of(mapper).values())
    made = instantiate(node, _convert_="all")(20, 20)
    spec = json.loads(json.dumps(made.spec()))
    assert spec == made.spec() == {"name": path.stem, **options}
    again = new_mapper(spec, 20, 20)
    assert type(again) is mapper and again.spec() == spec
    assert (again.in_size, again.out_size) == (20, 20)
    again.load_state_dict(made.state_dict())


def test_every_mapper_has_its_yaml():
    assert sorted(MAPPERS) == [path.stem for path in FILES]


@all_specs
def test_spec_rebuilds_the_same_mapper(spec):
    mapper = build(spec)
    assert spec.items() <= mapper.spec().items()
    twin = new_mapper(json.loads(json.dumps(mapper.spec())), 6, 6).eval()
    twin.load_state_dict(mapper.state_dict())
    states, mask = texts()
    assert torch.equal(twin(states, mask), mapper(states, mask))


class Composition(PreTrainedModel):
    config_class = PreTrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.mapper = new_mapper(config.mapper, 6, 6)
        self.head = nn.Linear(6, 2)
        self.post_init()


@by_name
def test_a_saved_hugging_face_model_holds_its_mapper(spec, tmp_path):
    mapper = build(spec)
    model = Composition(PreTrainedConfig(mapper=mapper.spec()))
    model.mapper.load_state_dict(mapper.state_dict())
    model.save_pretrained(tmp_path)
    loaded = Composition.from_pretrained(tmp_path).eval()
    states, mask = texts()
    assert torch.equal(loaded.mapper(states, mask), mapper(states, mask))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "os.system"}, "mapper.name must be one of linear, mlp, .*, found 'os.system'"),
        ({"_target_": "kd.features.mapper.Linear"}, "mapper.name must be one of linear, mlp, .*, found None"),
        ({"name": ["pca"]}, r"mapper.name must be one of linear, mlp, .*, found \['pca'\]"),
        ({"name": "pca", "rank": 2}, "mapper 'pca' .*'rank'; see conf/mapper/pca.yaml"),
        ({"name": "pca", "in_size": 2}, "mapper 'pca' .*'in_size'"),
        ({"name": "mlp", "dropout": 1}, r"dropout must be a number in \[0, 0.95\], found 1"),
    ],
)
def test_impossible_specs_are_refused(spec, message):
    with pytest.raises(KDError, match=message):
        new_mapper(spec, 4, 4)
