"""Tab completes commands, choices and options: what the command finds, and a real bash."""

import os
import pty
import re
import select
import shutil
import stat
import sys
import time

import pytest

from kd.cli import COMMANDS
from kd.commands.completion import candidates
from tests.conftest import run_kd


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("kd re", ["report", "reproduce"]),
        ("kd train student=bi", ["student=bilstm"]),
        ("kd train method=supervised trainer.max_e", ["trainer.max_epochs="]),
        ("kd train balance/alp", ["balance/alpha="]),
        ("kd train --con", ["--config-dir"]),
        ("kd cache build data=r", ["data=rotten_tomatoes"]),
        ("kd reproduce --from", ["--from-scratch"]),
        ("kd predict ru", []),
        ("kd serve --max-t", ["--max-texts"]),
        ("kd audit --label-n", ["--label-names"]),
        ("kd nothing --", ["--help"]),
        ("kd ../x --", ["--help"]),
        ("kd train data.path=a", []),
        ("kd train 'loss=[so", []),
    ],
)
def test_what_may_stand_there(line, found):
    assert candidates(line) == found


def test_every_command_is_found():
    assert set(candidates("kd ")) == set(COMMANDS)


def test_other_shells_are_refused(capsys):
    assert run_kd("completion", "fish") == 2
    assert "expected one of the shells bash, zsh" in capsys.readouterr().err
    assert run_kd("completion", "zsh") == 0 and "compdef _kd kd" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "options", "prepared"),
    [("bash", ["--norc", "--noprofile"], "true"), ("zsh", ["--no-rcs"], "autoload -Uz compinit; compinit -u -D")],
)
def test_a_shell_completes_with_tab(tmp_path, shell, options, prepared):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    own = tmp_path / "kd"
    own.write_text(f'#!/bin/sh\nexec {sys.executable} -m kd "$@"\n')
    own.chmod(own.stat().st_mode | stat.S_IEXEC)
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PS1": "$ ",
            "PYTHONPATH": os.getcwd(),
            "TERM": "dumb",
        }
        os.execlp(shell, shell, *options, "-i")
    try:
        os.write(terminal, f'{prepared}; eval "$(kd completion {shell})"; echo rea""dy\n'.encode())
        assert "ready" in read(terminal, "ready\r")
        os.write(terminal, b"echo kd; kd trai\tstudent=bil\t")
        shown = re.sub(".\b", "", read(terminal, "bilstm "))  # zsh takes back the space that it has added
        assert "kd train student=bilstm " in shown
    finally:
        os.write(terminal, b"\x03exit\n")
        os.close(terminal)
        os.waitpid(child, 0)


def read(terminal: int, end: str) -> str:
    text, deadline = "", time.monotonic() + 120
    while end not in text and time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            text += os.read(terminal, 4096).decode(errors="replace")
    return text
