"""The schema of ``audit.json``, which ``kd audit`` writes beside a model. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from kd.errors import KDError
from kd.storage import records
from kd.storage.records import Number, Part, Record, Size

NAME, PAGE = "audit.json", "audit"
"""Its name in the directory of the run, and that of the folder with the page beside it."""
Model = Literal["student", "teacher", "alone"]
Verdict = Literal["none", "brought in", "amplified", "kept", "reduced", "not decided"]


class Effect(Record):
    """A difference between two groups, or the change of one, with the interval that decides it."""

    difference: Number
    low: Number
    high: Number
    p: Part


class Comparison(Record):
    """A group against a reference group, in `kd.audit.comparisons.Comparison`'s words."""

    measure: Literal["score", "size", "true positives", "false positives"]
    attribute: str
    group: str
    reference: str
    pairs: Size
    units: Size
    biases: dict[Model, Effect]
    changes: dict[Model, Effect]
    verdicts: dict[Model, Verdict]


class Share(Record):
    """A share of texts, with Wilson's interval; ``p`` is that of the difference from the student's share."""

    share: Part
    low: Part
    high: Part
    p: Part | None = None


class Flips(Record):
    """Texts whose label changes when words for women and men are exchanged.

    Args:
        texts, pairs: number of all texts, and of those with such a word.
        examples: text, the text after the exchange, label before and after, for the student.
    """

    source: str
    texts: Size
    pairs: Size
    shares: dict[Model, Share]
    examples: list[Annotated[list[str], MinLen(4)]]


class Audit(Record):
    """``audit.json``.

    Args:
        source, texts: the texts of the comparisons, and their number.
        of_class: the class whose probability is the score.
        least: the smallest difference that counts as a bias.
        models: the paths of the student and of those that it is compared with.
        sentence: for the model card.
    """

    format: Size
    source: str
    texts: Size
    of_class: str
    least: Part
    models: dict[Model, str]
    comparisons: Annotated[list[Comparison], MinLen(1)]
    flips: Flips | None
    sentence: str


def read(run: Path) -> dict[str, Any]:
    """Read the audit of a run.

    Raises:
        KDError: there is none, or it is damaged.
    """
    place = run / NAME
    if not place.is_file():
        raise KDError(f"expected an audit in '{run}', found no {NAME}; make one with kd audit {run}")
    return records.read(place, Audit, sealed=True, advice="run kd audit again")
