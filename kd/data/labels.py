"""Turn the values of a label column into label ids, by one rule for the whole column."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd.contract import IGNORED_LABEL
from kd.data.label_forms import (
    MISSING,
    foreign,
    form,
    is_id,
    is_integer,
    is_measured,
    is_number,
    short,
    text_of,
)
from kd.errors import KDError

MOST_INFERRED = 1000
"""Label names found in the data; a column with more values does not hold labels."""
FEW_NUMBERS = 20
"""Different numbers with a fraction, such as half stars, that may still be classes."""
ROWS_EACH = 5
"""Rows of each such number, on average, from which they may be classes."""
NEARLY_ALL = 0.9
"""Share of the values that are numbers, from which the column is one of numbers."""
UNITS = "%‰$€£¥"
TRUTH = {"false": 0, "true": 1}
SEPARATORS = re.compile(r"[,;|]")
SPACED = re.compile(r"[,;|/+&\s]+")
NO_LABEL = "-1"
"""The value that benchmarks such as GLUE write in place of a hidden test label."""


def require_label_names(names: Sequence[Any] | None) -> list[str] | None:
    """Return the label names as text.

    Raises:
        KDError: there are fewer than two names, or two are the same.
    """
    if names is None:
        return None
    texts = [str(name) for name in names]
    if len(texts) < 2 or len(set(texts)) < len(texts):
        raise KDError(f"data.label_names={texts}: expected at least two names, each once, such as [negative,positive]")
    return texts


@dataclass
class Value:
    """A value of the label column.

    Args:
        code: number of the value, in the order of the first rows.
        place: "file, line 3" of its first row.
        rows: number of its rows.
    """

    code: int
    place: str
    rows: int = 0


class LabelReader:
    """Reads labels that are names or ids. What they are is decided when all of them are known: see `finish`.

    Args:
        names: name of each id; None for the values found, sorted (as numbers if all are numbers).
        unlabelled: values that mean "no label", in addition to an empty cell and -100.
        are_ids: whether the column holds ids alone, because the file itself gives the names.
    """

    def __init__(self, names: Sequence[str] | None = None, unlabelled: Sequence[str] = (), are_ids: bool = False):
        self._names = list(names) if names is not None else None
        self._are_ids = are_ids
        self._unlabelled = {"", str(IGNORED_LABEL), *unlabelled}
        self.values: dict[str, Value] = {}
        self.warnings: list[str] = []
        self.rule = ""
        """How the values are read, in words; known after `finish`."""

    def read(self, value: Any, file: str, line: int) -> int:
        """Return the code of a value, or -100 if it means "no label". `finish` gives the id of each code.

        Raises:
            KDError: the value is a list or an object, or there are too many different values.
        """
        text = text_of(value, file, line)
        if text in self._unlabelled:
            return IGNORED_LABEL
        known = self.values.get(text)
        if known is None:
            if len(self.values) == MOST_INFERRED:
                what = "numbers" if all(map(is_number, self.values)) else "values"
                raise KDError(
                    f"{file}, line {line}: the label column holds more than {MOST_INFERRED:,} different "
                    f"{what}, for example {short(text)}; set data.label to the column of the labels, or "
                    "data.label_names to their names"
                )
            known = self.values[text] = Value(len(self.values), f"{file}, line {line}")
        known.rows += 1
        return known.code

    def finish(self) -> tuple[list[str], np.ndarray]:
        """Return the label names, and the id of each code, by one rule for all values.

        Given names are matched first. If a value is no name, all of them must be ids. Names and ids stand side by side
        only where no name is a number, so that each value has one meaning.

        Raises:
            KDError: a value fits neither; or no names were given, and the values are no classes.
        """
        if self._names is None:
            names, ids = self._inferred(), None
        else:
            names, ids = self._names, self._matched(self._names)
        found = ids if ids is not None else {text: names.index(text) for text in self.values}
        return names, np.array([found[text] for text in self.values] or [0], dtype=np.int64)

    def _matched(self, names: Sequence[str]) -> dict[str, int]:
        """Return the id of each value, by the names or as the id that it is."""
        by_name = {name: number for number, name in enumerate(names)}
        ids = {text: int(text) for text in self.values if is_id(text, len(names))}
        others = [text for text in self.values if text not in by_name]
        ordered = [str(number) for number in range(len(names))] == list(names)
        if not self._are_ids and not others:
            self.rule = "names"
            if len(ids) == len(self.values) and ids and not ordered:
                self._warn("read as names; they could be ids as well", list(self.values))
            return {text: by_name[text] for text in self.values}
        if len(ids) == len(self.values):
            self.rule = "ids"
            if not self._are_ids and any(map(is_number, names)) and not ordered:
                self._warn(f"read as ids, as not all of them are label names: 0 means {names[0]!r}", list(self.values))
            return ids
        if len(names) == 2 and all(text.casefold() in TRUTH for text in self.values):
            self.rule = "false and true as ids"
            return {text: TRUTH[text.casefold()] for text in self.values}
        if not self._are_ids and not any(map(is_number, names)):
            unclear = [text for text in others if text not in ids]
            folded = _by_form(names)
            if all(len(folded.get(form(text), ())) == 1 for text in unclear):
                return self._mixed(by_name | ids, {text: by_name[folded[form(text)][0]] for text in unclear})
        raise self._refusal(names, by_name, ids)

    def _mixed(self, known: Mapping[str, int], close: Mapping[str, int]) -> dict[str, int]:
        """Return the ids where names, ids and names in other letters stand side by side, and warn of it."""
        if close:
            self._warn("written in another form than data.label_names", close)
        if truths := {text for text in self.values if text in known and is_number(text)}:
            self._warn("written as ids, and the others as names", truths)
        self.rule = "names and ids"
        return {text: known[text] if text in known else close[text] for text in self.values}

    def _refusal(self, names: Sequence[str], by_name: Mapping[str, int], ids: Mapping[str, int]) -> KDError:
        neither = {text: value for text, value in self.values.items() if text not in by_name and text not in ids}
        kinds = f"({', '.join(map(repr, names[:20]))}) nor an id from 0 to {len(names) - 1}"
        if neither and not self._are_ids:
            text, value = next(iter(neither.items()))
            more = f" ({len(neither):,} such values, {self._rows(neither):,} rows)" if len(neither) > 1 else ""
            return KDError(
                f"{value.place}: label {short(text)} is neither one of the label names {kinds}{more}; correct the "
                "row, or set data.label_names to all the names"
            )
        expected = "ids in the whole column" if self._are_ids else "either names or ids in the whole column"
        odd = neither or {text: value for text, value in self.values.items() if text not in by_name}
        text, value = next(iter(odd.items()))
        return KDError(
            f"the labels are {self._listed(self.values)}: expected {expected}, as the label names are "
            f"{', '.join(map(repr, names[:20]))}; {short(text)} ({value.place}) does not fit; correct "
            "data.label_names or the labels"
        )

    def _inferred(self) -> list[str]:
        """Return the values as names, sorted.

        Raises:
            KDError: they look like something else than classes.
        """
        values = self.values
        if len(values) < 2:
            found = self._listed(values) or "none"
            raise KDError(
                f"fewer than two classes: expected at least two different labels, found {found}; check "
                "data.label and data.where, or name the classes with data.label_names"
            )
        self._refuse_no_classes()
        self._warn_of_oddities()
        whole = all(map(is_integer, values))
        self.rule = "the values found, sorted as numbers" if whole else "the values found, sorted"
        return sorted(values, key=int if whole else str)

    def _refuse_no_classes(self) -> None:
        values, rows = self.values, self._rows(self.values)
        if odd := foreign(list(values)):
            what, advice, texts = odd
            raise KDError(
                f"the labels {self._listed({text: values[text] for text in texts})} are {what}: expected the name or "
                f"number of a class; {advice}, or name the classes as they are with data.label_names"
            )
        found = f"{len(values):,} different values in {rows:,} rows"
        few = len(values) <= FEW_NUMBERS and rows >= ROWS_EACH * len(values)
        present = [text for text in values if text.casefold() not in MISSING - {NO_LABEL}]
        example = next(filter(is_measured, present), None)
        numbers = sum(is_number(text) or is_measured(text) for text in present)
        if example is not None and numbers >= NEARLY_ALL * len(present):
            message = f"the labels are numbers with a fraction, such as {short(example)} ({found})"
            if any(mark in example for mark in UNITS):
                message = f"the labels are shares or amounts, such as {short(example)} ({found})"
            if not few:
                raise KDError(
                    f"{message}, which is regression: expected classes; set data.label to another column, or write "
                    "classes in place of the numbers"
                )
            self.warnings.append(f"{message}: each number becomes a class, and their order has no effect")
        alone = [text for text, value in values.items() if value.rows == 1]
        if len(values) > 2 and (len(alone) == len(values) or (len(values) > FEW_NUMBERS and rows < 2 * len(values))):
            raise KDError(
                f"the labels are nearly all different ({found}, such as {short(alone[0])}): expected several rows of "
                "each class; set data.label to the column of the labels, or data.label_names to their names"
            )

    def _warn_of_oddities(self) -> None:
        values = self.values
        for texts in _by_form(values).values():
            if len(texts) > 1:
                same = "the same number" if is_number(texts[0]) else "the same but for letters and spaces"
                self._warn(f"{same}: each is a class of its own", texts)
        if alone := [text for text, value in values.items() if value.rows == 1]:
            self._warn("classes with a single row", alone)
        numbers = [text for text in values if is_number(text)]
        if 0 < len(numbers) < len(values):
            self._warn("numbers, and the others are names", numbers)
        if len(numbers) == len(values) > FEW_NUMBERS and all(map(is_integer, values)):
            ids = sorted(map(int, values))
            if ids[0] not in (0, 1) or ids[-1] - ids[0] >= len(ids):
                self._warn("whole numbers with gaps, and each becomes a class: if they are amounts, this is regression")
        if absent := [text for text in values if text.casefold() in MISSING - {NO_LABEL}]:
            self._warn("classes; if they mean 'no label', leave those cells empty", absent)
        if parts := list(filter(self._has_parts, values)):
            self._warn("several labels in one cell (multi-label): each combination becomes a class", parts)

    def _has_parts(self, text: str) -> bool:
        """Return whether a value joins others: one of them by a comma, or all of its parts by another mark."""
        some, every = (set(map(str.strip, split.split(text))) for split in (SEPARATORS, SPACED))
        return bool((len(some) > 1 and some & set(self.values)) or (len(every) > 1 and every <= set(self.values)))

    def check_trained(self, counts: Mapping[str, Mapping[str, int]], given: Iterable[str]) -> None:
        """Warn of classes that have rows for evaluation but none to train on.

        Args:
            counts: number of rows by label, for each split.
            given: the splits that have files of their own.

        Raises:
            KDError: no label of such a split is one of train.
        """
        train = {name: rows for name, rows in counts.get("train", {}).items() if rows}
        if not train:  # a train split without any label
            return
        for split in ("validation", "test"):
            rows = {name: number for name, number in counts.get(split, {}).items() if number}
            new = {name: number for name, number in rows.items() if name not in train}
            if new and new == rows and split in given:
                raise KDError(
                    f"no label of {split} ({_counted(new)}) is one of train ({_counted(train)}): expected the same "
                    f"labels in both; write them in the same way, or correct data.{split}"
                )
            if new:
                absent = any(name.casefold() in MISSING for name in new)
                hint = "; if it means 'no label', leave those cells empty" if absent else ""
                self.warnings.append(f"labels of {split} that have no row in train: {_counted(new)}{hint}")

    def _warn(self, what: str, texts: Iterable[str] | None = None) -> None:
        chosen = {text: self.values[text] for text in (self.values if texts is None else texts)}
        self.warnings.append(f"labels {self._listed(chosen)} are {what}")

    def _listed(self, chosen: Mapping[str, Value]) -> str:
        """Return values with the numbers of their rows, in words."""
        return _counted({text: value.rows for text, value in chosen.items()})

    @staticmethod
    def _rows(chosen: Mapping[str, Value]) -> int:
        return sum(value.rows for value in chosen.values())


def _by_form(names: Iterable[str]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name in names:
        found[form(name)].append(name)
    return found


def _counted(rows: Mapping[str, int]) -> str:
    """Return the first labels with the numbers of their rows, in words."""
    listed = [f"{short(name)} ({number:,} rows)" for name, number in list(rows.items())[:5]]
    more = len(rows) - len(listed)
    return ", ".join(listed) + (f" and {more:,} more ({sum(rows.values()):,} rows in all)" if more > 0 else "")
