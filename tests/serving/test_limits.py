"""Each limit is declared with its range and its meaning, and its default is within the range."""

from dataclasses import asdict

import pytest

from kd.options.declared import options_of
from kd.serving.limits import Limits


def test_the_defaults_fit_and_every_limit_has_a_meaning():
    declared = options_of(Limits)
    assert set(declared) == set(asdict(Limits()))
    assert all(declared[name].fits(value) and declared[name].meaning for name, value in asdict(Limits()).items())


@pytest.mark.parametrize("name", ["max_body", "max_texts", "batch_size", "read_seconds", "stop_seconds"])
def test_nothing_is_no_limit(name):
    assert not options_of(Limits)[name].fits(0)
