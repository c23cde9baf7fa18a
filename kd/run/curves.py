"""Read and join the curves of a run, before and after interruptions."""

from __future__ import annotations

from pathlib import Path

import pandas


def join_curves(path: Path, before: list[Path]) -> None:
    """Put the curves from before interruptions in front, each up to where the run went on."""
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
    """What the logger wrote; nothing of a file that it was writing when the run was killed."""
    try:
        return pandas.read_csv(path).dropna(subset="step")
    except (FileNotFoundError, KeyError, pandas.errors.EmptyDataError, pandas.errors.ParserError):
        return pandas.DataFrame()
