"""Read the curves of a run, and join those from before and after an interruption."""

from __future__ import annotations

from pathlib import Path

import pandas


def join_curves(path: Path, before: list[Path]) -> None:
    """Put the curves from before interruptions in front, each up to the step at which the run resumed."""
    tables = [table for part in [*before, path] if len(table := curves_in(part))]
    if before and tables:
        whole = tables.pop()
        while tables:
            earlier = tables.pop()
            whole = pandas.concat([earlier[earlier["step"] < whole["step"].min()], whole])
        whole.to_csv(path, index=False)
    for part in before:
        part.unlink()


def curves_in(path: Path) -> pandas.DataFrame:
    """Read what the logger wrote; nothing if the run was killed while the logger wrote the file."""
    try:
        return pandas.read_csv(path).dropna(subset="step")
    except (FileNotFoundError, KeyError, pandas.errors.EmptyDataError, pandas.errors.ParserError):
        return pandas.DataFrame()
