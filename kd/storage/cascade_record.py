"""The schema of ``cascade.json``, which ``kd cascade`` writes beside a model. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, MinLen

from kd.errors import KDError, NewerError
from kd.storage import records
from kd.storage.records import Amount, Part, Record, Sha256, Size

NAME, DRAWING = "cascade.json", "cascade.png"
"""Its name in the directory of the run, and that of the drawing beside it."""


class Stage(Record):
    """A student or the teacher.

    Args:
        path: of its run or folder, relative to the directory of the cascade.
        temperature: divides its logits.
        milliseconds: of one text, with the tokenizer.
    """

    path: str
    checksum: Sha256
    temperature: Annotated[float, Gt(0)]
    milliseconds: Amount


class Rows(Record):
    """What the cascade did on some rows.

    Args:
        answered: the number of texts that each student and the teacher answered.
        differing: the number of texts on which cascade and teacher differ.
    """

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
    students: Annotated[list[Stage], MinLen(1)]
    teacher: Stage
    kind: Literal["agreement", "accuracy"]
    target: Part
    confidence: Part
    threshold: Part | None
    bound: Part
    source: str
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
    try:
        return records.read(place, Cascade, sealed=True)
    except NewerError:
        raise
    except KDError as error:
        raise KDError(str(error).replace("train it again", "run kd cascade again")) from None
