"""The command that made a run, as one would type it."""

from __future__ import annotations

from typing import Any

from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.storage.files import read_yaml

OF_A_JOB = "hydra.mode=RUN"
"""Part of the command of every job of a sweep: see `kd.sweep.jobs.Job.arguments`."""


def plain_command(command: object) -> list[str]:
    """Write ``sys.argv`` as one would type it; return an empty list where it is no command.

    >>> plain_command(["/home/me/.venv/bin/kd", "train", "seed=1"])
    ['kd', 'train', 'seed=1']
    """
    if not isinstance(command, list) or not command:
        return []
    words = [str(word) for word in command[1:]]
    return ["kd", *([] if words[:1] in (["train"], ["reproduce"]) else ["train"]), *words]


def command_of(run: RunDirectory, environment: dict[str, Any]) -> list[str]:
    """Return the command that made a run; empty without a record. A job of a sweep becomes a single run."""
    command = plain_command(environment.get("command"))
    if OF_A_JOB not in command:
        return command
    places = [at for at, word in enumerate(command) if word == "--config-dir"]
    flags = [word for at in places for word in command[at : at + 2]]
    return ["kd", "train", *flags, *(overrides(run, environment) or ())]


def overrides(run: RunDirectory, environment: dict[str, Any]) -> list[str] | None:
    """Return the overrides on the command line of this run, from Hydra's record or else from the command."""
    try:
        found = read_yaml(run.path / ".hydra" / "overrides.yaml")
    except KDError:
        found = None
    if isinstance(found, list):
        return [str(word) for word in found]
    command = plain_command(environment.get("command"))
    if command[1:2] != ["train"]:
        return None
    of_job = ("hydra.", "hydra/") if OF_A_JOB in command else ()
    return [word for word in command[2:] if "=" in word and not word.lstrip("+").startswith(of_job)]
