"""The schema of ``evaluation.json``, which ``kd evaluate --on`` writes beside a model. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen

from kd.storage import records
from kd.storage.records import Number, Record, Size

NAME, PAGE = "evaluation.json", "evaluation"
"""Its name in the directory of the run, and that of the folder with the page."""


class Estimate(Record):
    """A figure and the bounds of its interval; null where it is not defined, as the AUROC of rows of one class."""

    value: Number | None
    low: Number | None
    high: Number | None


class Teacher(Record):
    """The classifier against its teacher on the same rows."""

    agreement: Estimate


class Slice(Record):
    """A part of the rows, and the difference of its accuracy from that of all other rows."""

    name: str
    rows: Size
    difference: Estimate


class DataSet(Record):
    """One data set: metrics by name, its accuracy minus that on the first data set, and the decided slices first."""

    name: str
    rows: Size
    metrics: dict[str, Estimate]
    difference: Estimate | None
    teacher: Teacher | None
    slices: list[Slice]


class Change(Record):
    """One kind of changed texts: the difference of the accuracy, and the share of rows that get another label."""

    name: str
    difference: Estimate
    flipped: Estimate


class Evaluation(Record):
    """``evaluation.json``, as far as kd reads it: the report and the model card."""

    format: Size
    data: Annotated[list[DataSet], MinLen(1)]
    robustness: list[Change]


def read(folder: Path) -> dict[str, Any] | None:
    """Read the evaluation in the directory of a run; None where there is none.

    Raises:
        KDError: it is damaged.
    """
    place = folder / NAME
    return records.read(place, Evaluation, sealed=True, advice="run kd evaluate again") if place.is_file() else None
