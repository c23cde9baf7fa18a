"""All mistakes of a configuration are found before anything is trained."""

import pytest
from omegaconf import OmegaConf

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
        (["teacher=ensemble", "cache.use=false"], "teacher=ensemble reads its outputs from the cache"),
        (["teacher.precision=9-bit"], "9-bit"),
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
