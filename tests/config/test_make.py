"""Make objects from nodes, and name what is wrong with a node."""

from functools import partial

import pytest
from omegaconf import OmegaConf

from kd.config.make import make, once, plain, resolve
from kd.errors import KDError, OptionError
from kd.runtime import fork_memory

LOSS = "kd.losses.logits.LogitMSE"


def node(**keys):
    return OmegaConf.create({"loss": {"mine": {"_target_": LOSS, **keys}}}).loss.mine


def test_arguments_come_from_the_node_and_from_the_run():
    assert make(node(weight=2.0)).weight == 2
    assert make(node(weight=2.0), weight=3.0).weight == 3


def test_an_option_is_named_by_its_place():
    with pytest.raises(OptionError, match=r"^loss\.mine\.weight must be a number of at least 0, found -1"):
        make(node(weight=-1))


@pytest.mark.parametrize("keys", [{"wight": 1.0}, {"wight": 1.0, "_partial_": True}])
def test_arguments_that_do_not_fit_are_refused_at_once(keys):
    with pytest.raises(KDError, match=rf"'{LOSS}' could not be made from its configuration: .*wight"):
        make(node(**keys))


def test_a_partial_is_made():
    assert isinstance(make(node(_partial_=True)), partial)


def test_what_the_run_adds_is_not_resolved():
    with pytest.raises(KDError, match=r"weight: a path or name must not contain '\$\{'"):
        make(node(), weight="${oc.env:HOME}")


def test_once_makes_once_for_equal_parts(monkeypatch):
    monkeypatch.setattr(fork_memory, "_KEPT", {})
    config, made = OmegaConf.create({"a": {"x": 1}, "b": 2}), []
    with fork_memory.keeping():
        for rows in (1, 1, 2):
            config.b += 1  # is not among the places
            once("thing", config, ("a",), lambda: made.append(1), lambda rows=rows: {"rows": rows})
    assert len(made) == 2


def test_plain_and_resolve():
    config = OmegaConf.create({"a": {"x": "${b}"}, "b": 2})
    assert plain(config.a) == {"x": 2} and plain(5) == 5
    assert resolve(config) == {"a": {"x": 2}, "b": 2}
