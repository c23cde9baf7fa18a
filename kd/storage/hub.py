"""Names on the hub, ``org/model@revision``, and the commits of them that this process has read. Needs no torch."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

log = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")

READ: dict[str, str] = {}
"""Commit by name, as the configuration has it."""


def parted(name: str) -> tuple[str, str | None]:
    """The name and the revision (a commit, tag or branch) that it is pinned to.

    >>> parted("org/model@main"), parted("org/model")
    (('org/model', 'main'), ('org/model', None))
    """
    name, _, revision = name.partition("@")
    return name, revision or None


def note(name: str, commit: str) -> None:
    """Keep which commit was read; one that is not pinned, and so may be another tomorrow, is said in the log."""
    if READ.get(name) == commit:
        return
    READ[name] = commit
    bare, revision = parted(name)
    if not COMMIT.fullmatch(revision or ""):
        log.warning("%s is not pinned: it may be another tomorrow; today's is %s@%s", name, bare, commit)


def commits(values: Iterable[object]) -> dict[str, str]:
    """Of what was read, what is among these values of a configuration."""
    return {value: READ[value] for value in values if isinstance(value, str) and value in READ}
