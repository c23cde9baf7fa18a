"""Read a file of answers: for each text what some model, service or person said about its label.

Each row has a text and one kind of answer (`KINDS`), in one column with a list (or an object by class) or in a column
for each class. Rows find their texts by content, as duplicates are found (`kd.data.splits.normalise`). A file without
texts, as ``kd cache answers`` writes it, has their hashes in their place.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from scipy.special import log_softmax

from kd.data.files import Row, read_rows
from kd.data.splits import text_keys, unusable
from kd.errors import KDError
from kd.teacher.by_text import HASH, HASH_BYTES, HASHED, hashes, positions

log = logging.getLogger(__name__)

KINDS = {"probabilities": "probability_", "logits": "logit_", "scores": "score_"}
"""Kinds of answers: the column with all classes, and how the columns of single classes begin."""
TOLERANCE = 1e-3
"""How far the sum of a row's probabilities may be from 1."""


@dataclass(frozen=True)
class AnswersTable:
    """The answers of a file, each text once.

    Args:
        kind: one of `KINDS`, or ``label``.
        keys: of the texts, ``[N]``.
        logits: ``[N, C]`` float32.
        hashed: the keys are hashes of the texts as they are, without normalisation.
    """

    kind: str
    keys: np.ndarray
    logits: np.ndarray
    hashed: bool = False

    def of(self, texts: Iterable[str]) -> np.ndarray:
        """Return the logits of texts ``[M, C]``, NaN for a text without an answer."""
        keys = hashes(texts) if self.hashed else np.array([text_keys(text)[0] for text in texts], dtype=HASH)
        at = positions(keys, self.keys)
        return np.where(at[:, None] >= 0, self.logits[at], np.float32("nan"))


def read_answers(
    path: Path, names: Sequence[str], text: str, label: str, encoding: str, temperature: float, floor: float
) -> AnswersTable:
    """Read a file of answers.

    Args:
        path: JSONL, JSON, CSV, TSV, Parquet or Arrow.
        names: of the classes, in the order of the logits.
        text, label: names of these columns.
        encoding: of text formats.
        temperature: divides the logits.
        floor: the least probability of a class.

    Raises:
        KDError: a row or the whole file is wrong.
    """
    rows = read_rows(path, encoding)
    if hashed := HASHED in rows.columns and text not in rows.columns:
        text = HASHED
    rows.require(text, "teacher.text")
    kind, columns = columns_of(path, rows.columns, names, label)
    keys, values, lines, empty = [], [], [], 0
    for line, row in rows:
        found = None if unusable(row.get(text)) else _values(row, kind, columns, names, f"{path}, row {line}")
        if found is None:
            empty += 1
            continue
        keys.append(_hash(row[text], f"{path}, row {line}") if hashed else text_keys(row[text])[0])
        values.append(found)
        lines.append(line)
    if left := empty + rows.malformed.count:
        log.warning(
            "teacher: %d rows of %s have no text or no answer, or cannot be read: they are left out", left, path
        )
    if not keys:
        raise KDError(f"expected rows with a text and {kind} in {path}, found none; give another file")
    table = np.array(values, dtype=np.float64)
    _require_values(path, kind, table, lines)
    logits = (_logits(kind, table, floor) / temperature).astype(np.float32)
    return AnswersTable(kind, *_each_once(path, np.array(keys, dtype=HASH), logits, lines), hashed)


def _hash(cell: str, place: str) -> bytes:
    try:
        found = bytes.fromhex(cell)
    except ValueError:
        found = b""
    if len(found) < HASH_BYTES:
        expected = f"expected {2 * HASH_BYTES} hexadecimal digits in {HASHED}"
        raise KDError(f"{place}: {expected}, found {cell[:60]!r}; correct it")
    return found[:HASH_BYTES]


def columns_of(path: Path, columns: Sequence[str], names: Sequence[str], label: str) -> tuple[str, list[str]]:
    """Return the kind of answers in a file and its columns: one for all classes, or one a class in the data's order.

    Raises:
        KDError: there is none, there are two kinds, or the classes are not those of the data.
    """
    found = [(kind, [kind]) for kind in KINDS if kind in columns]
    for kind, start in KINDS.items():
        if own := [column for column in columns if column.startswith(start)]:
            found.append((kind, own))
    if len(found) > 1:
        both = " and ".join(f"'{kept[0]}'" for _, kept in found[:2])
        raise KDError(f"{path} has two kinds of answers, in the columns {both}; leave one of them out")
    if not found and label not in columns:
        expected = ", ".join(f"{kind} or {start}NAME" for kind, start in KINDS.items())
        raise KDError(
            f"expected answers in {path}: one of the columns {expected}, or '{label}'; found {', '.join(columns)}; "
            "rename a column, or set teacher.label"
        )
    kind, own = found[0] if found else ("label", [label])
    if kind == "label" or own == [kind]:
        return kind, own
    start = KINDS[kind]
    _require_names(str(path), [column.removeprefix(start) for column in own], names)
    return kind, [f"{start}{name}" for name in names]


def _require_names(place: str, found: Sequence[str], names: Sequence[str]) -> None:
    if sorted(found) != sorted(names):
        raise KDError(
            f"{place}: expected answers for the classes {', '.join(names)}, found {', '.join(found) or 'none'}; rename "
            "them as in data.label_names"
        )


def _values(row: Row, kind: str, columns: list[str], names: Sequence[str], place: str) -> list[float] | None:
    """Return the numbers of a row ``[C]``, one-hot for a label; None where all its cells are empty."""
    cells = [row.get(column) for column in columns]
    if all(cell is None or cell == "" for cell in cells):
        return None
    if kind == "label":
        return _one_hot(cells[0], names, place)
    if columns == [kind]:
        cells = _listed(cells[0], names, place)
    if len(cells) != len(names):
        raise KDError(
            f"{place}: expected {len(names)} {kind}, one for each of {', '.join(names)}, found {len(cells)}; correct it"
        )
    try:
        if any(isinstance(cell, bool) for cell in cells):
            raise ValueError
        return [float(cast(Any, cell)) for cell in cells]
    except (TypeError, ValueError):
        raise KDError(f"{place}: expected {kind} as numbers, found {str(cells)[:60]}; correct them") from None


def _listed(cell: Any, names: Sequence[str], place: str) -> list[Any]:
    """Return a list of a value for each class from a cell: a list, an object by class, or JSON text of one."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            raise KDError(f"{place}: expected a JSON list of numbers, found {cell[:60]!r}; correct it") from None
    if isinstance(cell, Mapping):
        _require_names(place, list(map(str, cell)), names)
        return [cell[name] for name in names]
    return cell if isinstance(cell, list) else [cell]


def _one_hot(cell: Any, names: Sequence[str], place: str) -> list[float]:
    if str(cell) in names:
        number = list(names).index(str(cell))
    elif str(cell).isdecimal() and int(str(cell)) < len(names) and not any(name.isdecimal() for name in names):
        number = int(str(cell))
    else:
        raise KDError(
            f"{place}: expected a label out of {', '.join(names)} or its number, found {str(cell)[:60]!r}; correct it"
        )
    return [float(place == number) for place in range(len(names))]


def _require_values(path: Path, kind: str, table: np.ndarray, lines: Sequence[int]) -> None:
    """Refuse numbers that are not what their column says; the message has the first such row."""

    def refuse(wrong: Any, expected: str) -> None:
        if wrong.any():
            row = int(wrong.argmax())
            found = ", ".join(f"{value:g}" for value in table[row][:10])
            more = f" ({int(wrong.sum())} such rows)" if wrong.sum() > 1 else ""
            raise KDError(f"{path}, row {lines[row]}: expected {expected}, found {found}{more}; correct the file")

    refuse(~np.isfinite(table).all(axis=1), f"finite {kind}")
    if kind == "probabilities":
        refuse(np.asarray(((table < 0) | (table > 1)).any(axis=1)), "probabilities in [0, 1]")
        refuse(np.abs(table.sum(axis=1) - 1) > TOLERANCE, "probabilities whose sum is 1")
    if kind == "scores":
        refuse((table < 0).any(axis=1) | (table.sum(axis=1) <= 0), "scores of at least 0, one of them above 0")


def _logits(kind: str, table: np.ndarray, floor: float) -> np.ndarray:
    """Return log-probabilities ``[N, C]``, or logits as they are."""
    if kind == "logits":
        return table
    return log_softmax(np.log(np.maximum(table / table.sum(axis=1, keepdims=True), floor)), axis=1)


def _each_once(path: Path, keys: np.ndarray, logits: np.ndarray, lines: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the answers of different texts; refuse different answers for one text."""
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    if (differs := (logits != logits[first][place]).any(axis=1)).any():
        row = int(differs.argmax())
        raise KDError(
            f"{path}: rows {lines[first[place[row]]]} and {lines[row]} have the same text and different answers "
            f"({int(differs.sum())} such rows; case and spaces do not count); keep one of them"
        )
    return keys[first], logits[first]
