"""The command line before a command is imported."""

import argparse
import re
import subprocess
import sys

import pytest

from kd.cli import COMMANDS
from tests.conftest import run_kd


@pytest.mark.parametrize("before", [["-m"], ["-u", "-m"]], ids=["by hand", "by torchrun"])
def test_torch_is_imported_by_a_command_that_has_set_its_environment(before):
    command = [sys.executable, "-X", "importtime", *before, "kd", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("kd ") and not re.search(r"\| +torch$", said.stderr, re.MULTILINE)


def test_help_is_quick_and_needs_no_torch():
    probe = "import sys, kd.cli; kd.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", f"import sys; sys.argv = ['kd']; {probe}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(f"  {name} " in printed for name in COMMANDS)


@pytest.mark.parametrize("command", ["report", "evaluate", "reproduce", "predict", "cache"])
def test_help_is_written_for_a_terminal(command, capsys):
    with pytest.raises(SystemExit):
        run_kd(command, "--help")
    assert "``" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["report", "evaluate", "reproduce", "predict", "data", "cache", "cache build"])
def test_help_says_what_each_option_is_for(command, monkeypatch):
    class Parsed(BaseException):
        pass

    def parse(self, *_):
        raise Parsed(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_intermixed_args", parse)
    with pytest.raises(Parsed) as caught:
        run_kd(*command.split())
    parser = caught.value.args[0]
    assert all(action.help for action in parser._actions)
    assert parser.description[0].isupper() and parser.description.endswith(".")


def test_unknown_command(capsys):
    assert run_kd("distil") == 2
    assert "there is no command 'distil'; the commands are init, advise" in capsys.readouterr().err
