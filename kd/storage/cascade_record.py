"""The schema of ``cascade.json``, which ``kd cascade`` writes beside a model. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, MinLen

from kd.errors import KDError
from kd.storage import records
from kd.storage.records import Amount, Part, Record, Sha256, Size

NAME, DRAWING = "cascade.json", "cascade.png"
"""Its name in the directory of the run, and that of the drawing beside it."""


class Stage(Record):
    """A student or the teacher: its place relative to the cascade's directory, and its time for one text."""

    path: str
    checksum: Sha256
    temperature: Annotated[float, Gt(0)]
    milliseconds: Amount


class Rows(Record):
    """What the cascade did: how many texts each stage answered, and on how many cascade and teacher differ."""

    rows: Size
    answered: list[Size]
    differing: Size
    accuracy: Part | None
    teacher_accuracy: Part | None
    milliseconds: Amount


class Cascade(Record):
    """``cascade.json``.

    Args:
        kind: of the target: the agreement with the teacher, or the share of its right answers that are kept.
        threshold: null where the teacher answers all texts.
        bound: exact lower bound of what the target is about, at the threshold.
        measured: rows that did not choose the threshold, where there are any.
    """

    format: Size
    source: str
    students: Annotated[list[Stage], MinLen(1)]
    teacher: Stage
    kind: Literal["agreement", "accuracy"]
    target: Part
    confidence: Part
    threshold: Part | None
    bound: Part
    calibration: Rows
    measured: Rows | None


def read(run: Path) -> dict[str, Any]:
    """Read the cascade of a run.

    Raises:
        KDError: there is none, or it is damaged.
    """
    place = run / NAME
    if not place.is_file():
        raise KDError(f"expected a cascade in '{run}', found no {NAME}; make one with kd cascade {run}")
    return records.read(place, Cascade, sealed=True, advice="run kd cascade again")
