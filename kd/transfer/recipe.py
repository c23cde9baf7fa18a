"""What decides a transfer set: the rows of the run, the steps, their options and their seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kd.contract import IGNORED_LABEL
from kd.data.batching import in_slices
from kd.data.sources import Splits
from kd.data.splits import text_keys
from kd.storage.checksum import digest
from kd.transfer.base import LabelledTexts, Step

VERSION = 1
"""Grows when kd chooses other texts from the same parts."""


@dataclass(frozen=True)
class Known:
    """The rows that a transfer set is made from, and those that it must not repeat.

    Args:
        train: the labelled training rows.
        keys: of all training texts, also those without a label (`kd.data.splits.text_keys`).
        checksum: of all these rows.
    """

    train: LabelledTexts
    keys: frozenset[bytes]
    checksum: str

    @classmethod
    def of(cls, splits: Splits) -> Known:
        """Return the rows of a run's splits."""
        columns = splits.train["text"], splits.train["label"]
        rows = [row for row in zip(*map(in_slices, columns), strict=True) if row[1] != IGNORED_LABEL]
        held_out = (text for split in (splits.validation, splits.test) for text in in_slices(split["text"]))
        sides = frozenset(text_keys(text)[1] for text in held_out)
        keys = frozenset(text_keys(text)[0] for text in in_slices(splits.train["text"]))
        checksum = digest([rows, sorted(side.hex() for side in sides)])
        texts, labels = [text for text, _ in rows], [label for _, label in rows]
        labelled = LabelledTexts(texts, labels, checksum, sides, splits.label_names)
        checksums = {name: split["sha256"] for name, split in splits.counts["splits"].items()}
        return cls(labelled, keys, digest(checksums))


@dataclass
class TransferRecipe:
    """What decides a transfer set beside the rows.

    Args:
        steps: by name.
        options: those of each step, with a checksum in place of each file.
        seed: of all random choices.
        rows: largest number of texts in all; None for no limit.
        column: name of the column with the texts.
    """

    steps: Mapping[str, Step]
    options: Mapping[str, Mapping[str, Any]]
    seed: int
    rows: int | None
    column: str

    def key_of_step(self, name: str, known: Known) -> str:
        """Return the key of the texts that a step makes, before any are chosen."""
        step = self.steps[name]
        making = {key: value for key, value in self.options[name].items() if key not in step.selecting}
        names = [list(known.train.names)] if step.reads_names else []
        return digest([VERSION, step.version, making, self.seed, known.train.checksum, *names])[:20]

    def key(self, known: Known) -> str:
        """Return the key of the whole transfer set."""
        steps = [[name, self.key_of_step(name, known), self.options[name]] for name in self.steps]
        return digest([VERSION, steps, self.seed, self.rows, self.column, known.checksum])[:20]
