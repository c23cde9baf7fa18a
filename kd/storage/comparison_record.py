"""The schema of ``comparison.json``, which ``kd compare`` writes beside a model. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len

from kd.storage import records
from kd.storage.records import Number, Part, Record, Size

NAME, PAGE = "comparison.json", "comparison"
"""Its name in the directory of the run, and that of the folder with the page beside it."""


class Finding(Record):
    """A finding; ``setting`` is null where nothing needs to change."""

    name: str
    sentence: str
    setting: str | None


class Softness(Record):
    """The teacher's answers at a temperature: mean entropy, and what they say beyond the label, in nats."""

    temperature: Number
    entropy: Number
    information: Number


class Group(Record):
    """A part of the rows, and the share to which both models give the same label, with Wilson's interval."""

    name: str
    rows: Size
    agreement: Part
    low: Part
    high: Part


class Example(Record):
    """A text, its gold label, and the label and its probability of teacher and student."""

    text: str
    gold: str
    labels: Annotated[list[str], Len(2, 2)]
    probabilities: Annotated[list[Part], Len(2, 2)]
    divergence: Number


class Comparison(Record):
    """``comparison.json``.

    Args:
        source, rows: the held-out rows, and their number.
        trained: false before the training of the student.
        probes: accuracy of a linear probe for each layer, of the teacher and of the student.
        shares: share of the variance of each teacher layer in the student's width.
        similarity: CKA, a row for each layer of the student.
        agreement: null where one of the two cannot answer yet, as ``groups`` and ``examples`` are then empty.
        sentence: for the model card.
    """

    format: Size
    source: str
    rows: Size
    teacher: str
    student: str
    trained: bool
    findings: list[Finding]
    probes: Annotated[list[list[Part]], Len(2, 2)]
    shares: list[Part]
    similarity: list[list[Number]]
    softness: list[Softness]
    agreement: Part | None
    groups: list[Group]
    examples: list[Example]
    sentence: str


def read(run: Path) -> dict[str, Any]:
    """Read the comparison of a run.

    Raises:
        KDError: it is missing or damaged.
    """
    return records.read(run / NAME, Comparison, sealed=True, advice="run kd compare again")
