"""Read the files of each split into a `kd.data.splits.SplitBuilder`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kd.data.counts import Counts
from kd.data.dialect import Reading
from kd.data.files import Place, Rows, read_rows
from kd.data.folders import Layout, files_of, layout_of, texts_in
from kd.data.labels import NO_LABEL, LabelReader, require_label_names
from kd.data.splits import SplitBuilder, Splits
from kd.errors import KDError

log = logging.getLogger(__name__)

ORDER = ("test", "validation", "train")
"""In which the splits are read: a text of an earlier split is left out of the later ones."""

Split = TypeVar("Split")


@dataclass(frozen=True)
class FileReader:
    """Reads files. The arguments are those of `kd.data.sources.from_files`.

    Attributes:
        notes: what the names of the files do not say, for the log.
    """

    text: str
    label: str
    where: Mapping[str, Any]
    reading: Reading
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.text == self.label:
            raise KDError(f"data.text and data.label are both {self.text!r}: expected two columns; correct one of them")

    def layout(self, path: Any, train: Any, validation: Any, test: Any) -> Layout:
        """Return the places of each split; a split without rows of its own is missing."""
        if (path is None) == (train is None):
            raise KDError(
                "expected either data.path (a file or folder with all the rows) or data.train (a file with "
                f"the train rows), found {'both' if path else 'neither'}; set one of them"
            )
        layout = layout_of(train if path is None else path, (self.text, self.label), self.reading)
        given = {"validation": validation, "test": test}
        test_has_labels = test is not None or any(map(self._has_labels, layout.places.get("test", ())))
        places = without_hidden_labels(layout.places, test_has_labels)
        if not test_has_labels:
            layout.unused += (f"{place.name} (it has no labels)" for place in layout.places.get("test", ()))
            if dev := layout.places.get("validation"):
                self.notes.append(f"{dev[0].name} is the test split, and the validation split is taken out of train")
        for role, files in given.items():
            if files is not None:
                layout.unused += (f"{place.name} (data.{role} replaces it)" for place in places.get(role, ()))
                places[role] = list(map(Place, files_of(files)))
        layout.places = places
        return layout

    def _has_labels(self, place: Place) -> bool:
        rows = read_rows(place, self.reading)
        if self.label not in rows.columns:
            return False
        return any_label(row.get(self.label) for _, row in rows.only(self.label))

    def labels(self, layout: Layout, given: Sequence[Any] | None) -> LabelReader:
        """Return the reader of the label column.

        Args:
            layout: the files, some of which may have the names of the label ids.
            given: these names from the user.
        """
        names = require_label_names(given)
        found, are_ids = self._class_names(layout)
        unlabelled = [NO_LABEL] if found is not None else []
        return LabelReader(names or found, unlabelled, are_ids=are_ids and names is None)

    def read(self, builder: SplitBuilder, layout: Layout, unlabelled: Any, stream: bool) -> Splits:
        """Read all files and return the splits."""
        self._add_splits(builder, layout)
        self.add_unlabelled(builder, unlabelled, stream)
        more = f"; and {len(layout.unused) - 20:,} more" if len(layout.unused) > 20 else ""
        splits = finished(builder, [f"not used: {'; '.join(layout.unused[:20])}{more}"] if layout.unused else [])
        splits.notes += self.notes
        return splits

    def _class_names(self, layout: Layout) -> tuple[list[str] | None, bool]:
        """Return the names of the label ids that the files give, and whether all labelled files give them.

        Raises:
            KDError: two files give different names.
        """
        found: dict[str, list[str] | None] = {}
        for places in layout.places.values():
            for place in places:
                rows = read_rows(place, self.reading)
                if self.label in rows.columns:
                    found[place.name] = rows.names.get(self.label)
        named = {name: names for name, names in found.items() if names is not None}
        for name, names in named.items():
            first, others = next(iter(named.items()))
            if names != others:
                raise KDError(
                    f"{first} and {name} name the classes differently: expected the same names in the same order, "
                    f"found {', '.join(others[:5])} and {', '.join(names[:5])}; set data.label_names"
                )
        return next(iter(named.values()), None), bool(named) and len(named) == len(found)

    def _add_splits(self, builder: SplitBuilder, layout: Layout) -> None:
        """Add the rows of the splits, by role."""
        for role in ORDER:
            # Distillation can learn from texts alone, but selecting and evaluating a model needs labels.
            optional = role == "train" and {"validation", "test"} <= layout.places.keys()
            for place in layout.places.get(role, ()):
                rows = self._opened(place)
                label = None if optional and self.label not in rows.columns else self.label
                self._add(builder, role, rows, label, self.where)

    def add_unlabelled(self, builder: SplitBuilder, unlabelled: Any, stream: bool) -> None:
        """Add files of texts, or only check their column if they are streamed."""
        for file in texts_in(unlabelled) if unlabelled else []:
            rows = self._opened(file)
            if not stream:
                self._add(builder, "unlabelled", rows, None, {})
            elif rows.in_memory:
                raise KDError(
                    f"{file} is one JSON list, which data.stream cannot read in parts; write an object in each line"
                )
            else:
                rows.require(self.text, "data.text")

    def _opened(self, place: Place | Path) -> Rows:
        rows = read_rows(place, self.reading)
        if rows.unusual:
            self.notes.append(f"{rows.place.name} is read as {rows.taken}")
        return rows

    def _add(self, builder: SplitBuilder, role: str, rows: Rows, label: str | None, where: Mapping[str, Any]) -> None:
        rows.require(self.text, "data.text")
        if label is not None:
            rows.require(label, "data.label")
        for column in where:
            rows.require(column, "data.where")
        builder.add(role, rows.place.name, _matching(rows, self.text, label, where, builder.counts))
        rows.count_in(builder.counts)


def finished(builder: SplitBuilder, warnings: Sequence[str] = ()) -> Splits:
    """Return the splits with these warnings, and log all warnings: what may be a mistake in the data."""
    splits = builder.finish()
    splits.warnings[:0] = warnings
    splits.notes.append(f"labels are read as {builder.labels.rule}")
    for warning in splits.warnings:
        log.warning("data: %s", warning)
    return splits


def _matching(
    rows: Rows, text: str, label: str | None, where: Mapping[str, Any], counts: Counts
) -> Iterator[tuple[int, Any, Any]]:
    """Yield ``(line, text, label value)`` of the rows that have the values of ``where``, and count the others."""
    wanted = {
        column: {str(value) for value in (values if isinstance(values, list | tuple) else [values])}
        for column, values in where.items()
    }
    for line, row in rows:
        if all(str(row.get(column)) in values for column, values in wanted.items()):
            yield line, row.get(text), None if label is None else row.get(label)
        else:
            counts.read += 1
            counts.add("filtered", 1)


def without_hidden_labels(found: Mapping[str, Split], test_has_labels: bool) -> dict[str, Split]:
    """Replace a test split without labels, as GLUE's, by the validation split. Then validation is taken from train."""
    if test_has_labels or "validation" not in found:
        return {role: place for role, place in found.items() if role != "test" or test_has_labels}
    return {"train": found["train"], "test": found["validation"]}


def any_label(values: Iterable[Any]) -> bool:
    """Return whether one of the values is a label, and not what benchmarks write in its place.

    >>> any_label([None, "", -1.0, " -1 ", float("nan")]), any_label([-1, 0])
    (False, True)
    """
    return any(
        value is not None and value == value and str(value).strip().removesuffix(".0") not in ("", NO_LABEL)
        for value in values
    )
