"""The command that made a run, as one would type it."""

from __future__ import annotations

from typing import Any

import yaml

from kd.run.directory import RunDirectory

OF_A_JOB = "hydra.mode=RUN"
"""Part of the command of every job of a sweep: see `kd.sweep.jobs.Job.arguments`."""


def plain_command(command: list[str] | None) -> list[str] | None:
    """Write ``sys.argv`` as one would type it; None where it is no command.

    >>> plain_command(["/home/me/.venv/bin/kd", "train", "seed=1"])
    ['kd', 'train', 'seed=1']
    """
    if not isinstance(command, list) or not command:
        return None
    words = [str(word) for word in command]
    rest = words[1:] if words[1:2] in (["train"], ["reproduce"]) else ["train", *words[1:]]
    return ["kd", *rest]


def command_of(run: RunDirectory, environment: dict[str, Any]) -> list[str] | None:
    """Return the command that made a run, or None without a record. A job of a sweep becomes a single run."""
    command = plain_command(environment.get("command"))
    if command is None or OF_A_JOB not in command:
        return command
    places = [at for at, word in enumerate(command) if word == "--config-dir"]
    flags = [word for at in places for word in command[at : at + 2]]
    return ["kd", "train", *flags, *(overrides(run, environment) or ())]


def overrides(run: RunDirectory, environment: dict[str, Any]) -> list[str] | None:
    """Return the overrides on the command line of this run, from Hydra's record or else from the command."""
    try:
        found = yaml.safe_load((run.path / ".hydra" / "overrides.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        found = None
    if isinstance(found, list):
        return [str(word) for word in found]
    command = plain_command(environment.get("command"))
    if command is None or command[1] != "train":
        return None
    given = [word for word in command[2:] if "=" in word]
    of_job = ("hydra.", "hydra/") if OF_A_JOB in given else ()
    return [word for word in given if not word.lstrip("+").startswith(of_job)]
