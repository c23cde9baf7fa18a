"""The studies of papers: listed, complete, and each of their commands trains."""

import re
import shlex

import pytest

from kd.commands.experiments import FIELDS, studies
from kd.config.check import check
from kd.config.compose import composed
from tests.conftest import run_kd

STUDIES = studies()
COMMANDS = [(name, command) for name, fields in STUDIES.items() for command in fields["command"]]


def test_all_are_listed_and_each_is_complete(capsys):
    assert run_kd("experiments") == 0
    printed = capsys.readouterr().out
    assert len(STUDIES) >= 18 and all(re.search(rf"^{name} ", printed, re.M) for name in STUDIES)
    assert max(map(len, printed.splitlines())) <= 80
    for name, fields in STUDIES.items():
        assert set(fields) >= set(FIELDS) - {"measured"}, name
        assert all(f"experiment={name}" in command for command in fields["command"])


def test_one_is_printed_with_its_commands_whole(capsys):
    assert run_kd("experiments", "sun2019") == 0
    printed = capsys.readouterr().out
    assert all(f"command    {command}\n" in printed for command in STUDIES["sun2019"]["command"])
    assert run_kd("experiments", "sun2018") == 2
    assert "did you mean sun2019?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for all, so that teachers and transfer sets are made once."""
    return tmp_path_factory.mktemp("studies")


HEAVY = re.compile("_|inc|jiao|mukherjee|sanh|sun2019|turc|wang|ye")
"""Studies with a large student or with the sentences of 25,000 reviews: minutes in all."""


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[f"{n}{i}" for i, (n, _) in enumerate(COMMANDS)])
def test_the_last_run_of_each_command_is_no_mistake(name, command):
    check(composed([*last_run(command), "size=smoke"]))


def marked(command: str):
    heavy = HEAVY.search(command.split("=")[1])
    return pytest.param(command, marks=pytest.mark.long if heavy else pytest.mark.slow, id=command)


@pytest.mark.parametrize("command", [marked(command) for _, command in COMMANDS])
def test_the_last_run_of_each_command_trains(command, place, monkeypatch):
    """With the real teacher and sentences, in the smallest size."""
    monkeypatch.chdir(place)
    options = ["size=smoke", "threads=1", "trainer=cpu", "callbacks=[checkpoint]"]
    assert run_kd("train", *last_run(command), *options) == 0


def last_run(command: str) -> list[str]:
    """Return the overrides of a study's command for the last of the methods that it sweeps over."""
    return [re.sub("^method=.*,", "method=", word) for word in shlex.split(command)[2:] if word != "-m"]
