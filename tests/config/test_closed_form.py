"""What a student that is fitted in closed form cannot do is named, and nothing else is."""

import pytest

from kd.config import build
from kd.config.closed_form import of_closed_form
from kd.config.compose import composed


def found(*overrides: str) -> list[str]:
    config = composed(["student=bag", *overrides])
    return of_closed_form(config, build.method_class(config))


@pytest.mark.parametrize("overrides", [["method=supervised"], ["alpha=0.3", "temperature=3"]])
def test_what_it_can_do_is_no_mistake(overrides):
    assert not found(*overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=hints"], "without hidden states or gradient, got method=hints"),
        (["method.mixup=0.2"], "method.mixup is about the training of a network"),
        (["data.stream=true"], "is fitted to all rows at once"),
        (["trainer.devices=2"], "is fitted by one process"),
        (["loss=[dkd]"], "reads alpha and temperature; leave loss=[soft_target]"),
        (["balance/alpha=linear"], "leave loss=[soft_target] and the section balance"),
    ],
)
def test_what_it_cannot_do_is_named(overrides, said):
    (sentence,) = found(*overrides)
    assert said in sentence
