"""Turn the values of a label column into label ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kd.contract import IGNORED_LABEL
from kd.errors import KDError

MOST_INFERRED = 1000
"""Label names found in the data; a column with more values does not hold labels."""


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


class LabelReader:
    """Reads labels that are names or ids. Without given names, it collects the values of the column.

    Args:
        names: name of each id; None for the values found, sorted (as numbers if all are numbers).
        unlabelled: values that mean "no label", in addition to an empty cell and -100.
    """

    def __init__(self, names: Sequence[str] | None = None, unlabelled: Sequence[str] = ()):
        self._names = list(names) if names is not None else None
        self._codes = {name: number for number, name in enumerate(self._names or ())}
        self._unlabelled = {"", str(IGNORED_LABEL), *unlabelled}

    def read(self, value: Any, file: str, line: int) -> int:
        """Return the code of a value, or -100 if it means "no label". `finish` gives the id of each code.

        Raises:
            KDError: the value is neither a label name nor a label id.
        """
        text = _text(value)
        if text in self._unlabelled:
            return IGNORED_LABEL
        code = self._codes.get(text)
        if code is not None:
            return code
        if self._names is None:
            if len(self._codes) == MOST_INFERRED:
                raise KDError(
                    f"{file}, line {line}: the label column holds more than {MOST_INFERRED:,} different "
                    f"values, for example {_short(text)}; set data.label to the column of the labels, or "
                    "data.label_names to their names"
                )
            return self._codes.setdefault(text, len(self._codes))
        if text.isdecimal() and len(text) < 10 and int(text) < len(self._names):
            return int(text)
        raise KDError(
            f"{file}, line {line}: label {_short(text)} is neither one of the label names "
            f"({', '.join(map(repr, self._names))}) nor an id from 0 to {len(self._names) - 1}; correct the "
            "row, or set data.label_names to all the names"
        )

    def finish(self) -> tuple[list[str], np.ndarray]:
        """Return the label names, and the id of each code.

        Raises:
            KDError: no names were given, and fewer than two different labels were read.
        """
        if self._names is not None:
            return self._names, np.arange(len(self._names))
        if len(self._codes) < 2:
            found = ", ".join(map(_short, self._codes)) or "none"
            raise KDError(
                f"fewer than two classes: expected at least two different labels, found {found}; check "
                "data.label and data.where, or name the classes with data.label_names"
            )
        values = list(self._codes)
        names = sorted(values, key=int if all(map(_is_integer, values)) else str)
        return names, np.array([names.index(value) for value in values], dtype=np.int64)


def _text(value: Any) -> str:
    """Return a label as text, and a whole number without its fraction (1.0 -> 1)."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    text = str(value).strip()
    return text[:-2] if text.endswith(".0") and _is_integer(text[:-2]) else text


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 20


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
