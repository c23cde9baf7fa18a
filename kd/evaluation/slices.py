"""Parts of a data set in which a classifier may be worse than elsewhere. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from kd.errors import KDError
from kd.evaluation.measures import estimate
from kd.measure.significance import difference_interval
from kd.transfer.base import words

FEWEST = 10
"""Rows that a slice must have, and leave out, to be looked at."""
MOST_VALUES = 20
"""Different values of a column of words; one with more does not group the rows."""
RARE = 5
"""Training rows up to which a word is rare."""
MARKERS = {
    "negation": "not no never nothing nobody none nor neither without cannot isn't wasn't aren't weren't don't doesn't "
    "didn't won't wouldn't can't couldn't shouldn't hasn't haven't hadn't n't 不 没 沒 无 無 未 非",
    "contrast word": "but although though however yet despite while whereas nevertheless nonetheless 但 虽 雖 却 卻",
}
"""Words that mark a slice; in Chinese each character is a word (`kd.transfer.base.words`)."""
CLITIC = " n't"
"""Negation in texts whose clitics are words, as "do n't": `words` reads it as two words."""


def vocabulary(texts: Iterable[str]) -> Counter[str]:
    """Count for each word the texts that have it."""
    return Counter(word for text in texts for word in set(words(text)))


def masks(
    texts: Sequence[str],
    known: Mapping[str, int] | None,
    teacher: np.ndarray | None,
    columns: Mapping[str, Sequence[Any]],
) -> dict[str, np.ndarray]:
    """Return the rows of each slice, ``[N]`` bool by name.

    Args:
        texts: of the rows.
        known: in how many training rows each word is; None leaves out the slices of rare and unknown words.
        teacher: its logits ``[N, C]``; None leaves out the slices of its confidence.
        columns: values of the rows, which make slices of their own.

    Raises:
        KDError: a column has one value, or too many to group the rows.
    """
    split = [words(text) for text in texts]
    found = quarters("words", np.array([len(row) for row in split]))
    for name, marks in MARKERS.items():
        wanted = frozenset(marks.split())
        clitic = CLITIC if name == "negation" else "\0"
        marked = [not wanted.isdisjoint(row) or clitic in text for row, text in zip(split, texts, strict=True)]
        found[name] = np.array(marked)
    if known is not None:
        rows = [{min(known.get(word, 0), RARE + 1) for word in row} for row in split]
        found["a word in no training row"] = np.array([0 in row for row in rows])
        found[f"a word in 1 to {RARE} training rows"] = np.array([bool(row & set(range(1, RARE + 1))) for row in rows])
    if teacher is not None:
        found |= quarters("teacher's confidence", softmax(teacher.astype(float), axis=1).max(axis=1), digits=2)
    for name, values in columns.items():
        found |= groups(name, values)
    return found


def quarters(name: str, values: np.ndarray, digits: int = 0) -> dict[str, np.ndarray]:
    """Return the slices between the quartiles of a number; equal values share a slice."""
    codes = pd.qcut(values, 4, labels=False, duplicates="drop")
    found = {}
    for code in np.unique(codes[np.isfinite(codes)]):
        rows = codes == code
        low, high = (f"{bound:.{digits}f}" for bound in (values[rows].min(), values[rows].max()))
        found[f"{name} {low}" if low == high else f"{name} {low} to {high}"] = rows
    return found if len(found) > 1 else {}


def groups(name: str, values: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return a slice for each value of a column, or for its quartiles if it has many numbers.

    Raises:
        KDError: it has one value, or too many that are no numbers.
    """
    column = pd.Series(["" if value is None else str(value) for value in values])
    different = column.unique()
    if len(different) < 2:
        raise KDError(f"--slice {name}: expected a column with several values, found {different[0]!r} in all rows")
    if len(different) <= MOST_VALUES:
        return {f"{name} = {value or '(empty)'}": (column == value).to_numpy() for value in different}
    numbers = pd.to_numeric(column, errors="coerce").to_numpy()
    if not np.isfinite(numbers).all():
        raise KDError(
            f"--slice {name}: expected numbers or at most {MOST_VALUES} different values, found {len(different):,}; "
            "choose a column that groups the rows"
        )
    return quarters(name, numbers, digits=2)


def compared(slices: Mapping[str, np.ndarray], correct: np.ndarray, level: float = 0.05) -> list[dict[str, Any]]:
    """Compare the accuracy of each slice with that of all other rows, the decided ones first, the worst first.

    The intervals are simultaneous (Bonferroni): all of them hold together with a probability of at least 1 - level.
    """
    used = {name: rows for name, rows in slices.items() if FEWEST <= rows.sum() <= len(rows) - FEWEST}
    found = []
    for name, rows in used.items():
        inside, outside = correct[rows], correct[~rows]
        bounds = difference_interval(inside, outside, 1 - level / len(used))
        difference = estimate(float(inside.mean() - outside.mean()), bounds)
        found.append(
            {"name": name, "rows": int(rows.sum()), "accuracy": float(inside.mean()), "difference": difference}
        )
    is_open = lambda one: one["low"] <= 0 <= one["high"]  # noqa: E731
    return sorted(found, key=lambda one: (is_open(one["difference"]), one["difference"]["value"]))
