"""Contrast sets, and suites of behavioural tests in the terms of CheckList. Needs no torch.

Sources: Gardner et al. 2020 (contrast sets), https://aclanthology.org/2020.findings-emnlp.117; Ribeiro et al. 2020
(CheckList), https://aclanthology.org/2020.acl-main.442
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le, MinLen
from pydantic import ValidationError, model_validator
from scipy.special import softmax

from kd.data.labels import LabelReader
from kd.errors import KDError
from kd.evaluation.measures import Logits, share
from kd.storage.records import Record

Label = str | int
Text = Annotated[str, MinLen(1)]


class Test(Record):
    """A test of a suite; the keys are the attributes of a test in CheckList's release.

    Args:
        name: of the test.
        capability: what it is about, such as Negation.
        type: MFT: each text has a label. INV: all texts of a case get the label of the first. DIR: the probability of
            ``label`` rises or falls from the first text of a case to each other.
        data: the cases, each a text (MFT alone) or a list of texts.
        labels: MFT: one for all cases, or one a case.
        label: DIR: whose probability; null is the label that the first text gets.
        increasing: DIR: whether it may not fall (true) or not rise (false).
        tolerance: change of the probability that does not count.
    """

    name: str
    capability: str = ""
    type: Literal["MFT", "INV", "DIR"]
    data: Annotated[list[Text | Annotated[list[Text], MinLen(1)]], MinLen(1)]
    labels: Label | list[Label] | None = None
    label: Label | None = None
    increasing: bool | None = None
    tolerance: Annotated[float, Ge(0), Le(1)] = 0.0

    @model_validator(mode="after")
    def _in_full(self) -> Test:
        if (self.type == "MFT") != (self.labels is not None):
            raise ValueError("expected labels for MFT, and for MFT alone")
        if isinstance(self.labels, list) and len(self.labels) != len(self.data):
            raise ValueError(f"expected a label a case, {len(self.data)}, found {len(self.labels)}")
        if (self.type == "DIR") != (self.increasing is not None):
            raise ValueError("expected increasing for DIR, and for DIR alone")
        if self.type != "MFT" and any(isinstance(case, str) or len(case) < 2 for case in self.data):
            raise ValueError(f"expected at least two texts in each case of {self.type}")
        return self


def read_suite(path: Path) -> list[Test]:
    """Read a suite: a JSON object in each line, or a list of them.

    Raises:
        KDError: it is none, is empty, or is a pickle, which is not read because it can run any code.
    """
    example = '{"name": ..., "capability": ..., "type": "MFT", "data": [...], "labels": ...}'
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        pickled = "; kd reads no pickle, which could run any code: docs/evaluating.md has a script that converts it"
        raise KDError(
            f"expected a suite of tests as JSON lines in '{path}', found no such text ({type(error).__name__})"
            f"{pickled if path.suffix in ('.pkl', '.pickle') else '; check the path'}"
        ) from error
    try:
        lines = (
            json.loads(content)
            if content.lstrip().startswith("[")
            else map(json.loads, filter(str.strip, content.split("\n")))
        )
        found = [Test.model_validate(line) for line in lines]
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        place = ".".join(map(str, mistake["loc"][:2])) or str(error.title)
        raise KDError(
            f"expected tests as {example} in '{path}', found {place}: {mistake['msg']}; correct it"
        ) from error
    except ValueError as error:
        raise KDError(f"expected tests as {example}, one a line, in '{path}', found no JSON ({error})") from error
    if not found:
        raise KDError(f"expected tests as {example} in '{path}', found an empty file")
    return found


def suite(path: Path, names: Sequence[str], logits: Logits) -> list[dict[str, Any]]:
    """Run the tests of a suite; a case fails if one of its texts fails.

    Raises:
        KDError: the suite cannot be read, or has other labels than the classifier.
    """
    tests = read_suite(path)
    reader = LabelReader(names)
    number: dict[Label, int] = {}
    for place, test in enumerate(tests, start=1):
        given = test.labels if isinstance(test.labels, list) else [test.labels, test.label]
        number |= {label: reader.read(label, path.name, place) for label in given if label is not None}
    ids = reader.finish()[1]
    cases = [[[case] if isinstance(case, str) else case for case in test.data] for test in tests]
    flat = [text for test in cases for case in test for text in case]
    probabilities, start, found = softmax(logits(flat).astype(float), axis=1), 0, []
    for test, its_cases in zip(tests, cases, strict=True):
        failed = []
        for place, case in enumerate(its_cases):
            rows = probabilities[start : start + len(case)]
            start += len(case)
            label = (
                test.labels[place] if isinstance(test.labels, list) else (test.labels, test.label)[test.type != "MFT"]
            )
            failed.append(fails(test, rows, None if label is None else int(ids[number[label]])))
        first = next((" | ".join(case) for case, wrong in zip(its_cases, failed, strict=True) if wrong), None)
        found.append(
            {"name": test.name, "capability": test.capability, "type": test.type, "cases": len(its_cases)}
            | {"failures": sum(failed), "rate": share(np.array(failed)), "example": first}
        )
    return found


def fails(test: Test, rows: np.ndarray, label: int | None) -> bool:
    """Return whether a case fails; ``rows`` are the probabilities ``[T, C]`` of its texts."""
    given, first = rows.argmax(axis=1), int(rows[0].argmax())
    if test.type == "MFT":
        return bool((given != label).any())
    own = first if label is None else label
    change = rows[1:, own] - rows[0, own]
    if test.type == "INV":
        return bool(((given[1:] != first) & ((test.tolerance == 0) | (abs(change) > test.tolerance))).any())
    return bool(((change if test.increasing else -change) < -test.tolerance).any())


def contrast_sets(name: str, ids: Sequence[Any], correct: np.ndarray) -> dict[str, Any]:
    """Return the consistency: the share of the sets of rows with one id in which every row is right.

    Raises:
        KDError: a row is alone in its set.
    """
    sets: dict[Any, list[bool]] = {}
    for number, right in zip(ids, correct, strict=True):
        sets.setdefault(number, []).append(bool(right))
    if alone := [number for number, rows in sets.items() if len(rows) < 2]:
        raise KDError(
            f"--pairs {name}: expected at least two rows of each pair, found {len(alone)} ids with one, first "
            f"{alone[0]!r}; check --pair-column"
        )
    whole = np.array([all(rows) for rows in sets.values()])
    return {
        **{"name": name, "sets": len(sets), "rows": len(correct)},
        **{"accuracy": share(correct), "consistency": share(whole)},
    }
