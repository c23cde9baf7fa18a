"""Divide rows into train, validation and test by a hash of the text, so that no text is in two splits."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from kd.contract import IGNORED_LABEL
from kd.data.counts import ADVICE, DOUBTFUL, WORTH_A_WARNING, Counts
from kd.data.folds import Fold, folds_of
from kd.data.labels import LabelReader
from kd.data.store import Store, dataset_of, rows_of
from kd.errors import KDError

KEY_BYTES = 16
TRAIN = 2
"""Number of the train split, after test and validation."""
NO_LETTER = re.compile(r"[\W_]+")
ASCII_NO_LETTER = {code: None for code in range(128) if not chr(code).isalnum()}
"""For `str.translate`: removes the same characters from ASCII text, three times as fast."""
FATES = (
    *("filtered", "malformed", "repeated_header", "nul", "empty", "duplicates", "conflicting_duplicates"),
    *("unlabelled_held_out", "removed_from_validation", "removed_from_train", "limited"),
)
"""The reasons why a row is not used. `Splits.counts` has the number of rows for each."""


def normalise(text: str) -> str:
    """Return a text in the form in which duplicates are equal: NFKC, case folded, white space collapsed.

    >>> normalise("  Not\\u00a0BAD!\\n")
    'not bad!'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def text_keys(text: str) -> tuple[bytes, bytes]:
    """Return two keys of a text, each 16 bytes of a SHA-256: its key and its side.

    Texts with the same key are duplicates. Texts with the same side are always in the same split. The side ignores
    punctuation and spaces as well: "it 's bad ." and "it's bad" are no duplicates, but never in two different splits.

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


def left_out(counts: Mapping[str, Any], lines: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield for each of `FATES` how many rows were left out, and the first of their lines, for the log."""
    for fate in FATES:
        if count := counts.get(fate):
            places = lines.get(fate, [])
            more = ", ..." if count > len(places[:5]) else ""
            listed = f" ({', '.join(places[:5])}{more})" if places else ""
            yield f"  left out, {fate.replace('_', ' ')}: {count:,}{listed}"


def unusable(text: Any) -> str | None:
    """Return why a value of the text column cannot be used, as one of `FATES`; None if it can."""
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
    """Three data sets with the columns ``text``, ``label`` (-100 if the row has none) and ``line``.

    Attributes:
        label_names: name of each label id.
        warnings: what may be a mistake in the data, one sentence for each.
        notes: what was found out about the files, for the log.
        counts: ``read``, ``used``, ``unlabelled`` (rows of train without a label), each of `FATES` (``read`` is
            ``used`` plus all of them), ``lines`` (one of `FATES` -> "file:line" of its first 20 rows) and ``splits``
            (name -> ``rows``, ``labels`` by name, ``unlabelled``, ``sha256``).
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    label_names: list[str]
    counts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self) -> str:
        """Return how many rows were read, used and left out, for the log."""
        counts = self.counts
        lines = [f"data: {counts['read']:,} rows read, {counts['used']:,} used"]
        for name, split in counts["splits"].items():
            balance = [f"{label} {rows:,}" for label, rows in split["labels"].items()]
            balance += [f"unlabelled {split['unlabelled']:,}"] * bool(split["unlabelled"])
            lines.append(f"  {name}: {split['rows']:,} ({', '.join(balance)})")
        lines += (f"  {note}" for note in self.notes)
        return "\n".join([*lines, *left_out(counts, counts["lines"])])


class SplitBuilder:
    """Collects rows, leaves out those that cannot be used, and divides the rest into splits.

    Add the rows of ``test``, ``validation``, ``train`` and ``unlabelled`` in this order; only ``train`` is necessary.
    A text of an earlier role is left out of the later ones, so that no text for evaluation is in train.

    Args:
        labels: turns the values of the label column into ids.
        validation_share: part of the train rows that becomes validation, if no validation rows are added.
        test_share: part of the train rows that becomes test, if no test rows are added.
        limit: largest number of rows to use of each role but ``unlabelled``, chosen by hash; None for all.
        deduplicate: whether to use only the first row of each text in a split.
        fold: takes the place of ``test_share``.
    """

    def __init__(
        self,
        labels: LabelReader,
        validation_share: float = 0.1,
        test_share: float = 0.1,
        limit: int | None = None,
        deduplicate: bool = True,
        fold: Fold | None = None,
    ):
        self.labels, self._fold = labels, fold
        self._shares = {"test": test_share, "validation": validation_share}
        self._limit = limit
        self._deduplicate = deduplicate
        self._stores = {role: Store() for role in ("test", "validation", "train", "unlabelled")}
        self._seen: dict[str, dict[bytes, int]] = {"test": {}, "validation": {}, "train": {}}
        self._taken: dict[str, set[bytes]] = {"test": set(), "validation": set(), "train": set()}
        self._files: list[str] = []
        self._transfer_files: list[int] = []
        self.counts = Counts()
        self._given: set[str] = set()

    def add(self, role: str, file: str, rows: Iterable[tuple[int, Any, Any]]) -> None:
        """Add the ``(line, text, label value)`` of one file. The label of the role ``unlabelled`` is not read.

        Raises:
            KDError: a label is not one of the label names; or test rows are given together with a fold.
        """
        if role == "test" and self._fold:
            raise KDError(
                f"data.fold={self._fold.number} takes the test rows from all rows by a hash, but '{file}' has test "
                "rows of its own; leave data.fold out, or give all rows in one file (data.path=FILE)"
            )
        self._given.add(role)
        self._files.append(file)
        number = len(self._files) - 1
        self._transfer_files += [number] * (role == "unlabelled")
        for line, text, value in rows:
            self.counts.read += 1
            if fate := self._place(role, number, line, text, value):
                fault = f"its text is of the type {type(text).__name__}" if fate == "malformed" else ""
                self.counts.add(fate, 1, [f"{file}:{line}"], fault)

    def _place(self, role: str, file: int, line: int, text: Any, value: Any) -> str | None:
        """Store a row and return None, or return why it is left out."""
        if fault := unusable(text):
            return fault
        key, side = text_keys(text)
        label = IGNORED_LABEL
        if role != "unlabelled":
            label = self.labels.read(value, self._files[file], line)
        if label == IGNORED_LABEL:
            if role in ("test", "validation"):
                return "unlabelled_held_out"
            # `_transferable` decides later, when all labelled rows are known.
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
        """Divide the rows into splits, check and count them.

        Raises:
            KDError: a split has no rows, train has only one class, or the labels are no classes.
        """
        labelled = ("test", "validation", "train")
        tables = {role: self._within_limit(self._stores[role].table()) for role in labelled}
        if self.counts.read and not any(map(len, tables.values())):
            raise self._nothing_usable()
        numbers = self._split_numbers(tables["train"])
        for number, role in enumerate(("test", "validation")):
            if role not in self._given:
                tables[role] = tables["train"].filter(pa.array(numbers == number))
        unlabelled = self._transferable(self._stores["unlabelled"].table())
        added = np.isin(unlabelled["file"].to_numpy(), self._transfer_files)
        of_train, transfer = (unlabelled.filter(pa.array(chosen)) for chosen in (~added, added))
        unlabelled = pa.concat_tables([self._within_limit(of_train), transfer])
        tables["train"] = pa.concat_tables([tables["train"].filter(pa.array(numbers == TRAIN)), unlabelled])
        names, ids = self.labels.finish()
        counts: dict[str, Any] = {
            "read": self.counts.read,
            "used": sum(map(len, tables.values())),
            "unlabelled": len(unlabelled),
            **{fate: self.counts.fates.get(fate, 0) for fate in FATES},
            "lines": {fate: lines for fate in FATES if (lines := self.counts.lines.get(fate))},
            "splits": {},
        }
        datasets = {}
        for role in ("train", "validation", "test"):
            codes = tables[role]["label"].to_numpy()
            labels = np.where(codes == IGNORED_LABEL, IGNORED_LABEL, ids[np.maximum(codes, 0)])
            datasets[role], checksum = dataset_of(tables[role], labels)
            balance = Counter(labels.tolist())
            counts["splits"][role] = {
                "rows": len(labels),
                "labels": {name: balance[number] for number, name in enumerate(names)},
                "unlabelled": balance[IGNORED_LABEL],
                "sha256": checksum,
            }
        _check(counts)
        self.labels.check_trained({role: split["labels"] for role, split in counts["splits"].items()}, self._given)
        warnings = [*self.labels.warnings, *self._doubtful()]
        return Splits(**datasets, label_names=names, counts=counts, warnings=warnings)

    def _nothing_usable(self) -> KDError:
        """Return the error for rows of which none has a text and a label."""
        counts = self.counts
        if not counts.fates:
            return KDError(
                f"the train split is empty: {counts.read:,} rows were read, and none of them has a label; set "
                "data.label to the column of the labels, or give the files as data.unlabelled"
            )
        dropped = ", ".join(f"{number:,} {fate.replace('_', ' ')}" for fate, number in counts.fates.items())
        fate = max(counts.fates, key=counts.fates.__getitem__)
        return KDError(
            f"the train split is empty: {counts.read:,} rows were read, and none can be used; left out: {dropped} "
            f"({self._first(fate)}); {ADVICE.get(fate, 'give more rows')}"
        )

    def _first(self, fate: str) -> str:
        """Return where the first row of a fate is, and what is wrong with it."""
        place, fault = self.counts.lines[fate][:1], self.counts.faults.get(fate)
        return f"first {', '.join([*place, *([fault] if fault else [])])}" if place else "see data.where"

    def _doubtful(self) -> Iterator[str]:
        """Yield a warning for each fate with many rows that may be a mistake of reading."""
        for fate, words in DOUBTFUL.items():
            count = self.counts.fates.get(fate, 0)
            if count and count >= WORTH_A_WARNING * self.counts.read:
                yield f"{count:,} of {self.counts.read:,} rows {words} ({self._first(fate)}); {ADVICE[fate]}"

    def _within_limit(self, table: pa.Table) -> pa.Table:
        """Return the rows with the smallest hashes. These are other bytes than those that choose the split."""
        if self._limit is None or len(table) <= self._limit:
            return table
        chosen = np.zeros(len(table), dtype=bool)
        chosen[np.argsort(table["second"].to_numpy(), kind="stable")[: self._limit]] = True
        self.counts.add("limited", len(table) - self._limit)
        return table.filter(pa.array(chosen))

    def _split_numbers(self, table: pa.Table) -> np.ndarray:
        """Return 0 for test, 1 for validation or 2 for train, by the hash of each row as a number in [0, 1)."""
        test, validation = (0.0 if role in self._given else share for role, share in self._shares.items())
        hashes = table["first"].to_numpy()
        places = hashes / 2.0**64
        if self._fold is None:
            return np.digitize(places, (test, test + validation))
        test = 1 / self._fold.of
        numbers = np.digitize((places - self._fold.number * test) % 1.0, (test, test + validation))
        numbers = np.where(numbers == 0, TRAIN, numbers)  # by rounding, two folds could share a row or miss it
        return np.where(folds_of(hashes, self._fold.of) == self._fold.number, 0, numbers)

    def _transferable(self, table: pa.Table) -> pa.Table:
        """Return the rows without a label whose texts are not in any other split."""
        test, validation, train = (self._taken[role] for role in ("test", "validation", "train"))
        numbers = self._split_numbers(table)
        stays = np.ones(len(table), dtype=bool)
        met = set(self._seen["train"])
        for row, (text, _, line, file, side) in enumerate(rows_of(table)):
            key = _digest(normalise(text))
            if side in test or side in validation or (side in train and numbers[row] != TRAIN):
                fate = "removed_from_train"
            elif self._deduplicate and key in met:
                fate = "duplicates"
            else:
                met.add(key)
                continue
            stays[row] = False
            self.counts.add(fate, 1, [f"{self._files[file]}:{line}"])
        return table.filter(pa.array(stays))


def _check(counts: dict[str, Any]) -> None:
    dropped = ", ".join(f"{counts[fate]:,} {fate.replace('_', ' ')}" for fate in FATES if counts[fate])
    total = f"{counts['read']:,} rows were read" + (f"; left out: {dropped}" if dropped else "")
    for name, split in counts["splits"].items():
        if not split["rows"]:
            raise KDError(
                f"the {name} split is empty: expected at least one row in each of train, validation and "
                f"test; {total}; give more rows, larger shares, or the file of that split (data.{name}=...)"
            )
    train = counts["splits"]["train"]
    present = [name for name, rows in train["labels"].items() if rows]
    if len(present) == 1:
        raise KDError(
            f"only one class in the train split: all of its labelled rows "
            f"({train['labels'][present[0]]:,}) are {present[0]!r}, expected at least two classes; check "
            f"data.label and data.where, or give more rows ({total})"
        )
