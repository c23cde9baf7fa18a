"""Train, validation and test, cut by a hash of the text so that no text stands on both sides."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from kd.contract import IGNORED_LABEL
from kd.data.files import LINES_KEPT, Tally
from kd.data.labels import LabelReader
from kd.data.store import Store, Table
from kd.errors import KDError

KEY_BYTES = 16
NO_LETTER = re.compile(r"[\W_]+")
ASCII_NO_LETTER = {code: None for code in range(128) if not chr(code).isalnum()}
"""The same for ASCII, three times as fast."""
FATES = (
    "filtered",
    "malformed",
    "nul",
    "empty",
    "duplicates",
    "conflicting_duplicates",
    "unlabelled_held_out",
    "removed_from_validation",
    "removed_from_train",
    "limited",
)
"""Why a row that was read is not used; `Splits.counts` has one number for each."""


def normalise(text: str) -> str:
    """What duplicates share: NFKC, case folded, white space collapsed; punctuation stays.

    >>> normalise("  Not\\u00a0BAD!\\n")
    'not bad!'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def text_keys(text: str) -> tuple[bytes, bytes]:
    """Two keys of a text, 16 bytes of a SHA-256 each: one tells duplicates, one takes a side.

    The side forgets punctuation and spaces as well, so that "it 's bad ." and "it's bad" never stand on
    both sides of a split, while both may stay on one.

    >>> text_keys("It 's bad .")[1] == text_keys("it's bad")[1]
    True
    """
    text = normalise(text)
    letters = text.translate(ASCII_NO_LETTER)
    if not letters.isascii():
        letters = NO_LETTER.sub("", letters)
    return _digest(text), _digest(letters or text)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:KEY_BYTES]


def unusable(text: Any) -> str | None:
    """Why nothing can be learnt from what stands in the text column, as one of `FATES`; None where something can."""
    if text is None:
        return "empty"
    if not isinstance(text, str):
        return "malformed"
    if "\0" in text:
        return "nul"
    if not text or text.isspace():
        return "empty"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, from a JSON escape
            return "malformed"
    return None


@dataclass
class Splits:
    """Three data sets with columns ``text``, ``label`` (-100 where there is none) and ``line``.

    Attributes:
        label_names: name of each label id.
        counts: ``read``, ``used``, ``unlabelled`` (rows of train without a label), every one of `FATES`
            (``read`` is ``used`` plus all of them), ``lines`` (fate -> "file:line" of the first 20) and
            ``splits`` (name -> ``rows``, ``labels`` by name, ``unlabelled``, ``sha256``).
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    label_names: list[str]
    counts: dict[str, Any] = field(default_factory=dict)

    def report(self) -> str:
        """What was read, used and dropped, for the log."""
        counts = self.counts
        lines = [f"data: {counts['read']:,} rows read, {counts['used']:,} used"]
        for name, split in counts["splits"].items():
            balance = [f"{label} {rows:,}" for label, rows in split["labels"].items()]
            balance += [f"unlabelled {split['unlabelled']:,}"] * bool(split["unlabelled"])
            lines.append(f"  {name}: {split['rows']:,} ({', '.join(balance)})")
        for fate in FATES:
            if not counts[fate]:
                continue
            places = counts["lines"].get(fate, [])
            more = ", ..." if counts[fate] > len(places[:5]) else ""
            lines.append(
                f"  left out, {fate.replace('_', ' ')}: {counts[fate]:,}"
                + (f" ({', '.join(places[:5])}{more})" if places else "")
            )
        return "\n".join(lines)


class SplitBuilder:
    """Takes rows, drops those that cannot be used, and cuts what is left.

    Add ``test`` and ``validation`` rows first, where they are given, then ``train``, then
    ``unlabelled``: what comes later gives way. A text that is held out is removed from train.

    Args:
        labels: turns the values of the label column into ids.
        validation_share: part of the train rows that becomes validation, where none is given.
        test_share: part of the train rows that becomes test, where none is given.
        limit: of each role, use only that many rows, chosen by hash; None for all.
        deduplicate: within a split, keep the first row of each text.
    """

    def __init__(
        self,
        labels: LabelReader,
        validation_share: float = 0.1,
        test_share: float = 0.1,
        limit: int | None = None,
        deduplicate: bool = True,
    ):
        self._labels = labels
        self._shares = (test_share, validation_share)
        self._limit = limit
        self._deduplicate = deduplicate
        self._stores = {role: Store() for role in ("test", "validation", "train", "unlabelled")}
        self._seen: dict[str, dict[bytes, int]] = {"test": {}, "validation": {}, "train": {}}
        self._taken: dict[str, set[bytes]] = {"test": set(), "validation": set(), "train": set()}
        self._files: list[str] = []
        self._tallies = {fate: Tally() for fate in FATES}
        self._given: set[str] = set()
        self._read = 0

    def add(self, role: str, file: str, rows: Iterable[tuple[int, Any, Any]]) -> None:
        """Add the ``(line, text, label value)`` of one file; role ``unlabelled`` reads no label.

        Raises:
            KDError: a label outside the label names.
        """
        self._given.add(role)
        self._files.append(file)
        number = len(self._files) - 1
        for line, text, value in rows:
            self._read += 1
            fate = self._place(role, number, line, text, value)
            if fate is not None:
                self._tallies[fate].add(f"{file}:{line}")

    def drop(self, fate: str, file: str, tally: Tally) -> None:
        """Count rows that the reader left out itself."""
        self._read += tally.count
        known = self._tallies[fate]
        room = max(0, LINES_KEPT - len(known.lines))
        known.count += tally.count
        known.lines += [f"{file}:{line}" for line in tally.lines[:room]]

    def _place(self, role: str, file: int, line: int, text: Any, value: Any) -> str | None:
        """Store a row, or say why not."""
        if fault := unusable(text):
            return fault
        key, side = text_keys(text)
        label = IGNORED_LABEL
        if role != "unlabelled":
            label = self._labels.read(value, self._files[file], line)
        if label == IGNORED_LABEL:
            if role in ("test", "validation"):
                return "unlabelled_held_out"
            # Whether it may stay is known when all labelled rows are in.
            self._stores["unlabelled"].add(text, label, line, file, side)
            return None
        if role == "train" and (side in self._taken["test"] or side in self._taken["validation"]):
            return "removed_from_train"
        if role == "validation" and side in self._taken["test"]:
            return "removed_from_validation"
        seen = self._seen[role]
        if key in seen and self._deduplicate:
            return "duplicates" if seen[key] == label else "conflicting_duplicates"
        seen[key] = label
        self._taken[role].add(side)
        self._stores[role].add(text, label, line, file, side)
        return None

    def finish(self) -> Splits:
        """Cut, check and count.

        Raises:
            KDError: a split without rows, or one class only in train.
        """
        labelled = ("test", "validation", "train")
        tables = {role: self._within_limit(self._stores[role].table()) for role in labelled}
        cut = self._sides(tables["train"])
        for side, role in enumerate(("test", "validation")):
            if role not in self._given:
                tables[role] = tables["train"].where(cut == side)
        unlabelled = self._within_limit(self._transferable(self._stores["unlabelled"].table()))
        tables["train"] = tables["train"].where(cut == 2).followed_by(unlabelled)
        names, ids = self._labels.finish()
        counts: dict[str, Any] = {
            "read": self._read,
            "used": sum(map(len, tables.values())),
            "unlabelled": len(unlabelled),
            **{fate: tally.count for fate, tally in self._tallies.items()},
            "lines": {fate: tally.lines for fate, tally in self._tallies.items() if tally.lines},
            "splits": {},
        }
        datasets = {}
        for role in ("train", "validation", "test"):
            labels = tables[role].labels
            labels[labels >= 0] = ids[labels[labels >= 0]]
            datasets[role], checksum = tables[role].dataset()
            balance = Counter(labels.tolist())
            counts["splits"][role] = {
                "rows": len(labels),
                "labels": {name: balance[number] for number, name in enumerate(names)},
                "unlabelled": balance[IGNORED_LABEL],
                "sha256": checksum,
            }
        _check(counts)
        return Splits(**datasets, label_names=names, counts=counts)

    def _within_limit(self, table: Table) -> Table:
        """The rows of lowest hash; the bytes that choose are not those that cut."""
        if self._limit is None or len(table) <= self._limit:
            return table
        chosen = np.zeros(len(table), dtype=bool)
        chosen[np.argsort(table.sides[:, 1], kind="stable")[: self._limit]] = True
        self._tallies["limited"].count += int((~chosen).sum())
        return table.where(chosen)

    def _sides(self, table: Table) -> np.ndarray:
        """0 for test, 1 for validation, 2 for train, by the position of the hash between 0 and 1."""
        return np.digitize(table.sides[:, 0] / 2.0**64, self._borders())

    def _borders(self) -> tuple[float, float]:
        test_share, validation_share = self._shares
        test = 0.0 if "test" in self._given else test_share
        return test, test + (0.0 if "validation" in self._given else validation_share)

    def _transferable(self, table: Table) -> Table:
        """Rows without label, less those whose text is held out or stands in train already."""
        test, validation, train = (self._taken[role] for role in ("test", "validation", "train"))
        sides = self._sides(table)
        stays = np.ones(len(table), dtype=bool)
        met = set(self._seen["train"])
        texts = (text for chunk in table.texts.chunks for text in chunk.to_pylist())
        for row, text in enumerate(texts):
            side = table.side(row)
            key = _digest(normalise(text))
            if side in test or side in validation or (side in train and sides[row] != 2):
                fate = "removed_from_train"
            elif self._deduplicate and key in met:
                fate = "duplicates"
            else:
                met.add(key)
                continue
            stays[row] = False
            self._tallies[fate].add(f"{self._files[table.files[row]]}:{table.lines[row]}")
        return table.where(stays)


def _check(counts: dict[str, Any]) -> None:
    left_out = ", ".join(f"{counts[fate]:,} {fate.replace('_', ' ')}" for fate in FATES if counts[fate])
    story = f"{counts['read']:,} rows were read" + (f"; left out: {left_out}" if left_out else "")
    for name, split in counts["splits"].items():
        if not split["rows"]:
            raise KDError(
                f"the {name} split is empty: expected at least one row in each of train, validation and "
                f"test; {story}; give more rows, larger shares, or the file of that split (data.{name}=...)"
            )
    train = counts["splits"]["train"]
    present = [name for name, rows in train["labels"].items() if rows]
    if len(present) == 1:
        raise KDError(
            f"one class only in the train split: all of its labelled rows "
            f"({train['labels'][present[0]]:,}) are {present[0]!r}, expected at least two classes; check "
            f"data.label and data.where, or give more rows ({story})"
        )


def require_shares(validation_share: float, test_share: float) -> None:
    """Refuse shares that leave no rows to train on.

    Raises:
        KDError: their sum is 1 or more.
    """
    if validation_share + test_share >= 1:
        raise KDError(
            f"data.validation_share={validation_share} and data.test_share={test_share}: expected two numbers whose "
            f"sum is below 1, found {validation_share + test_share}; lower one, so that rows are left for train"
        )
