"""All mistakes of a configuration are found before anything is trained."""

import copy
import functools
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from kd.config.check import Mistakes, check, check_options
from kd.config.compose import composed
from kd.errors import KDError


def test_all_mistakes_of_a_command_come_in_one_go():
    overrides = ["seed=-1", "data.batch_size=0", "student.dropout=2", "teacher.epochs=0", "trainer.devices=0"]
    with pytest.raises(KDError) as error:
        check_options(composed(overrides))
    assert all(override.partition("=")[0] in str(error.value) for override in overrides)


@pytest.mark.parametrize("place", ["cache", "data", "trainer", "optim", "balance"])
def test_a_section_that_is_no_section_is_refused(place):
    config = OmegaConf.create(OmegaConf.to_container(composed([])))
    config[place] = None
    with pytest.raises(KDError, match=rf"{place}: expected "):
        check_options(config)


@pytest.mark.parametrize(
    "choices",
    [
        ["method=supervised"],
        ["method=hints", "loss=[hint]"],
        ["method=composition"],
        ["method=joint"],
        ["teacher=ensemble"],
    ],
    ids=lambda choices: choices[0],
)
def test_what_can_work_passes(choices):
    check(composed(choices))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss=[]"], "needs a transfer term"),
        (["loss=[hint]"], "method=hints"),
        (["optim.schedule=null"], "optim.schedule: expected a schedule as in conf/optim/adamw.yaml, got null"),
        (["optim.schedule.decay=step"], "optim.schedule.decay: expected linear, cosine or constant, got 'step'"),
        (["~mapper"], "mapper: expected a choice, got null"),
        (["teacher=ensemble", "+teacher.members.one=true"], "teacher.members.one: expected a teacher, got True"),
        (["teacher=ensemble", "cache.use=false"], "an ensemble reads its outputs from the cache"),
        (["teacher.seeds=2", "cache.use=false"], "an ensemble reads its outputs from the cache"),
        (["teacher.seeds=2", "method=composition"], "takes layers of one teacher, got an ensemble"),
        (["teacher.precision=9-bit"], "9-bit"),
        (["teacher=ensemble", "teacher.members=null"], "teacher.members: expected teachers by name, got None"),
        (["~teacher.epochs"], "teacher.epochs: expected a value, found no such key"),
        (["~alpha"], "alpha: expected a value, found no such key"),
        (["~embeddings._target_"], "embeddings: expected a choice, got {'std': 0.1}"),
        (["embeddings._target_=kd.losses.logits.LogitMSE"], "embeddings._target_: expected a kind of Embeddings"),
        (["loss.soft_target._target_=torch.nn.Linear"], "loss.soft_target._target_: expected a kind of Loss"),
        (["trainer._target_=torch.nn.Linear"], "trainer._target_: expected a kind of Trainer"),
        (["method=hints", "loss=[hint]", "method.layers=x"], "method.layers: expected uniform, last"),
        (["student=transformer", "student.num_attention_heads=7"], "not a multiple of the number of attention heads"),
        (["student=transformer", "student.max_position_embeddings=8"], "'bert' reads at most 8 tokens, got 64"),
        (["student=textcnn", "student.filter_sizes=[3,70]"], "filters of at most data.max_length=64 tokens, got 70"),
        (["student=bilstm", "student.hidden_size=60000", "student.num_layers=900"], "student: expected at most"),
        (["method=joint", "+student@peers.one=textcnn", "peers.one.filter_sizes=[99]"], "peers.one.filter_sizes: "),
        (["+trainer.check_val_every_n_epoch=9"], "leaves trainer.max_epochs=6 without a validation"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_work_is_refused(overrides, said):
    with pytest.raises(KDError) as error:
        check(composed(overrides))
    assert said in str(error.value)


def test_each_mistake_is_said_once():
    mistakes = Mistakes()
    for _ in range(2):
        assert mistakes.attempt(int.__call__, 3) == 3
        assert mistakes.attempt(check_options, composed(["seed=-1"])) is None
    with pytest.raises(KDError) as error:
        mistakes.refuse()
    assert str(error.value).count("seed") == 1


BASES = (
    *((), ("method=hints", "loss=[hint]"), ("method=composition",), ("method=joint",), ("teacher=ensemble",)),
    *(("teacher=assistant",), ("student=textcnn", "optim=adadelta"), ("student=transformer", "mapper=mlp")),
    *(("balance/temperature=learned", "balance/weighting=gradnorm"), ("callbacks=[checkpoint,ema,early_stopping]",)),
)
ODD = [
    *(None, True, -1, 0, 1, math.inf, math.nan, 10**30, 1e30, 1e-30),
    *("x", "", "${seed}", [], [1], {}, {"a": 1}, "DELETE"),
]


@functools.cache
def base(words: tuple[str, ...]) -> DictConfig:
    config = composed(words)
    OmegaConf.set_struct(config, False)
    return config


def keys(node: Any, place: str = "") -> Iterator[str]:
    """Every key of a configuration, but for the names of classes, which test_security.py tries."""
    for name in node:
        if not name.startswith("_") and name != "choices":
            yield f"{place}{name}"
            if OmegaConf.is_dict(node._get_node(name)):
                yield from keys(node._get_node(name), f"{place}{name}.")


@settings(max_examples=15, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(data=st.data(), words=st.sampled_from(BASES), value=st.sampled_from(ODD))
def test_whatever_an_option_is_set_to_it_works_or_is_one_sentence(data, words, value):
    """Thousands were tried in the same way."""
    config = copy.deepcopy(base(words))
    key = data.draw(st.sampled_from(sorted(keys(config))))
    place, _, name = key.rpartition(".")
    node = OmegaConf.select(config, place) if place else config
    if value == "DELETE":
        del node[name]
    else:
        node[name] = value
    try:
        check(config)
    except KDError as error:
        assert "\n" not in str(error), key
