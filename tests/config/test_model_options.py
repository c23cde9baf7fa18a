"""What commands that measure a classifier have in common."""

import argparse
from pathlib import Path

import pytest

from kd.config.model_options import add_options, begin, columns, teacher_of
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_options(parser, 8)
    return parser.parse_args(arguments)


def test_columns_are_given_or_those_of_the_run(pair):
    run = RunDirectory(pair / "dan")
    assert columns(parsed(), None, "body") == {"text": "body", "label": "label"}
    assert columns(parsed("--text", "body"), run) == {"text": "body", "label": "label"}
    with pytest.raises(KDError, match="--batch-size: expected at least 1, got 0"):
        begin("kd", parsed("--batch-size", "0"))


def test_the_teacher_is_that_of_the_run_but_not_of_itself(pair):
    run, said = RunDirectory(pair / "dan"), []
    teacher = own_teacher(run)
    assert teacher_of(run, run.path, said.append) == teacher and teacher_of(run, teacher, said.append) is None
    assert teacher_of(None, Path(), said.append) is None and not said
