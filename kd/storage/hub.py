"""Names on the Hugging Face Hub, such as ``org/model@revision``, and the commits that were read. Needs no torch."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

log = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")

READ: dict[str, str] = {}
"""What this process has read: name in the configuration -> commit."""


def parted(name: str) -> tuple[str, str | None]:
    """Split a name into the repository and the revision: a commit, a tag or a branch.

    >>> parted("org/model@main"), parted("org/model")
    (('org/model', 'main'), ('org/model', None))
    """
    name, _, revision = name.partition("@")
    return name, revision or None


def note(name: str, commit: str) -> None:
    """Record the commit that was read, and warn once if the name is not pinned to a commit."""
    if READ.get(name) == commit:
        return
    READ[name] = commit
    bare, revision = parted(name)
    if not COMMIT.fullmatch(revision or ""):
        log.warning("%s is not pinned to a commit and may change; today it is %s@%s", name, bare, commit)


def commits(values: Iterable[object]) -> dict[str, str]:
    """Return name -> commit for those values of a configuration that are names of what was read."""
    return {value: READ[value] for value in values if isinstance(value, str) and value in READ}
