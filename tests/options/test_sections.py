"""The declarations that no constructor makes."""

import pytest
import yaml

from kd.config.folder import configuration_folder
from kd.options.declared import options_of
from kd.options.methods import METHODS
from kd.options.sections import SECTIONS, Run


@pytest.mark.parametrize("declares", [*SECTIONS.values(), *METHODS.values()], ids=lambda kind: kind.__name__)
def test_every_option_has_a_meaning(declares):
    assert all(option.meaning for option in options_of(declares).values())


def test_the_top_declares_the_keys_of_the_configuration():
    content = yaml.safe_load((configuration_folder() / "config.yaml").read_text())
    assert set(content) - {"defaults", "hydra"} == {*options_of(Run), "cache", "balance", "selection"}
