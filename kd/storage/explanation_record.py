"""The schema of ``explanation.json``, which ``kd explain`` writes beside a model. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len, MinLen

from kd.storage import records
from kd.storage.records import Amount, Number, Part, Record, Size

NAME, PAGE = "explanation.json", "explanation"
"""Its name in the directory of the run, and that of the folder with the page beside it."""

Two = Len(2, 2)


class Estimate(Record):
    """A mean over texts with its 95 % interval."""

    mean: Number
    interval: Annotated[list[Number], Two]


class Explained(Record):
    """What is known of a model.

    Args:
        influence: mean absolute influence of a word, in log-odds.
        change: mean absolute change from the text without words to the text, where the method has one.
        gap, largest_gap: by how much the sums of the influences miss it.
        area: mean fall of the label's probability, more than without random words.
        ranked, random: the mean probability at each share of the words.
    """

    influence: Amount
    change: Amount | None
    gap: Amount | None
    largest_gap: Amount | None
    area: Estimate
    ranked: list[Part]
    random: list[Part]


class Pair(Record):
    """Two models on the same texts."""

    models: Annotated[list[str], Two]
    correlation: Estimate
    same_label: Part


class Word(Record):
    """A word whose influence differs between the student and another model."""

    other: str
    word: str
    towards: str
    texts: Size
    influences: Annotated[list[Number], Two]
    difference: Estimate


class Made(Record):
    """What both parts of an explanation have.

    Args:
        method: ig, gradient or occlusion.
        names: of the models; the first is the student.
        paths: where they lie.
    """

    command: str
    method: Literal["ig", "gradient", "occlusion"]
    names: Annotated[list[str], MinLen(1)]
    paths: list[str]


class OverData(Made):
    """What was found over many texts.

    Args:
        gain: how much more the student's ranks agree with the teacher's than those of the other run do.
    """

    source: str
    rows: Size
    left_out: Size
    shares: list[Part]
    models: list[Explained]
    pairs: list[Pair]
    gain: Estimate | None
    words: list[Word]
    words_tested: Size


class Neighbour(Record):
    """A training row near a text; ``label`` is null for a text of the transfer set."""

    text: str
    label: str | None
    teacher: str | None
    closeness: Number


class OfModel(Record):
    """What a model answers, and the influence of each word."""

    answer: str
    probability: Part
    values: list[Number]
    change: Annotated[list[Number], Two] | None


class Text(Record):
    """A text, explained for a label."""

    text: str
    words: list[str]
    label: str
    models: list[OfModel]
    neighbours: list[Neighbour]


class Texts(Made):
    """Single texts."""

    rows: list[Text]


class Explanation(Record):
    """``explanation.json``: the last single texts, and the last data set."""

    format: Size
    texts: Texts | None
    data: OverData | None


def read(run: Path) -> dict[str, Any]:
    """Read the explanation of a run.

    Raises:
        KDError: it is missing or damaged.
    """
    return records.read(run / NAME, Explanation, sealed=True, advice="run kd explain again")
