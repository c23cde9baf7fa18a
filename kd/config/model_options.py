"""What the commands that measure a classifier have in common: options, columns, and the teacher of its run."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from kd.config import targets
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher


def add_options(parser: argparse.ArgumentParser, batch_size: int = 64) -> None:
    """Add the options about the model and the files."""
    parser.add_argument("--text", help="column of the file with the texts (default: the run's own data.text)")
    parser.add_argument("--encoding", default="utf-8", help="of the file (default: utf-8)")
    names = "names of the model's labels in the order of its outputs, if its own are others, such as LABEL_0"
    parser.add_argument("--label-names", nargs="+", metavar="NAME", help=names)
    parser.add_argument("--batch-size", type=int, default=batch_size, help=f"texts at a time (default: {batch_size})")
    parser.add_argument("--modules", nargs="+", default=[], help="your own modules that the run's data may name")


def begin(program: str, options: argparse.Namespace) -> None:
    """Check the options, show warnings, and trust the modules that the user names.

    Those that a run lists are not trusted, because a stranger may have made it.
    """
    if options.batch_size < 1:
        raise KDError(f"--batch-size: expected at least 1, got {options.batch_size}")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=f"{program}: %(message)s")
    targets.trust(options.modules)


def columns(options: argparse.Namespace, run: RunDirectory | None, text: str = "text") -> dict[str, str]:
    """Return the columns of texts and labels: those that are given, or those of the run's data."""
    data = run.config()["data"] if run else {}
    defaults = {"text": text, "label": "label"}
    return {key: getattr(options, key, None) or data.get(key) or default for key, default in defaults.items()}


def teacher_of(run: RunDirectory | None, path: Path, note: Callable[[str], None]) -> Path | None:
    """Return the teacher of a model's run; None for the teacher itself, and, with a note, where it is not there."""
    if run is None:
        return None
    try:
        found = own_teacher(run)
    except KDError as error:
        note(f"not compared with a teacher: {error}")
        return None
    return None if found.resolve() == path.resolve() else found
