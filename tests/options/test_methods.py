"""The options of each method."""

import pytest
import yaml

from kd.config import targets
from kd.config.folder import configuration_folder
from kd.errors import OptionError
from kd.options.methods import METHODS, HintsOptions, JointOptions

CONF = configuration_folder() / "method"


@pytest.mark.parametrize("target", METHODS)
def test_the_files_give_the_defaults_of_the_declarations(target):
    (content,) = (
        node
        for path in CONF.glob("*.yaml")
        if (node := (text := yaml.safe_load(path.read_text())).get("method", text))["_target_"] == target
    )
    options = METHODS[target]()
    assert targets.find(target)
    for key in content.keys() - {"_target_", "partner_schedule"}:
        assert getattr(options, key) == content[key], key
    assert set(content) - {"_target_"} == set(vars(options))


@pytest.mark.parametrize(
    "values", [{"pooling": "max"}, {"feature_epochs": -1}, {"layers": [[1]]}, {"keep_features": 1}]
)
def test_values_outside_are_refused(values):
    with pytest.raises(OptionError):
        HintsOptions(**values)


def test_options_that_need_a_teacher_have_a_default():
    assert all(hasattr(JointOptions, name) for name in JointOptions.needs_teacher)
