"""What ``kd data inspect`` shows: the files of a data set, and the lengths of its texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from kd.data.batching import in_slices, tokenize
from kd.data.dialect import Reading
from kd.data.files import COLUMNAR, Place, read_rows
from kd.data.folders import Layout
from kd.data.opening import codec_of
from kd.data.reading import FileReader
from kd.data.splits import Splits

SPLITS = ("train", "validation", "test")
SPACED = 20
"""Characters in a word, on average, above which a language is taken to write no spaces."""
BINS = 10
QUANTILES = {"median": 0.5, "95 %": 0.95, "99 %": 0.99}
"""Shown beside the smallest length, the mean and the largest."""
NO_LIMIT = 1 << 30


@dataclass(frozen=True)
class FileFacts:
    """How one file is read.

    Args:
        role: split that its rows belong to.
        name: of the file.
        taken: its format, and for delimited text delimiter and quotes.
        encoding: of its texts; empty for a format that has its own.
        columns: in the file's order.
    """

    role: str
    name: str
    taken: str
    encoding: str
    columns: list[str]


def found(node: Mapping[str, Any]) -> tuple[Layout, list[FileFacts]]:
    """Return the files that a section ``data`` of a configuration names, read as `kd.data.sources.from_files` does.

    Raises:
        KDError: one of them cannot be read.
    """
    how = {key: node.get(key) for key in ("delimiter", "quoting", "header")}
    reading = Reading(node["encoding"], **how, wanted=(node["text"], node["label"]))
    reader = FileReader(node["text"], node["label"], node.get("where") or {}, reading)
    layout = reader.layout(*(node.get(key) for key in ("path", *SPLITS)))
    return layout, [_facts(role, place, reading) for role in SPLITS for place in layout.places.get(role, ())]


def _facts(role: str, place: Place, reading: Reading) -> FileFacts:
    rows = read_rows(place, reading)
    encoding = "" if rows.format in COLUMNAR or place.path.is_dir() else reading.encoding
    if encoding and (codec := codec_of(place.path, encoding)) in ("utf-16", "utf-32"):
        encoding = codec  # found by the byte order mark
    return FileFacts(role, place.name, rows.taken, encoding, rows.columns)


@dataclass(frozen=True)
class Lengths:
    """The lengths of all texts of a data set.

    Args:
        unit: what is counted: words, characters or pieces.
        values: one for each text.
    """

    unit: str
    values: np.ndarray

    def figures(self) -> dict[str, str]:
        """Return the smallest, the mean, the largest and some quantiles, in words."""
        quantiles = {name: np.quantile(self.values, share) for name, share in QUANTILES.items()}
        named = {"least": self.values.min(), "mean": self.values.mean(), **quantiles, "most": self.values.max()}
        return {name: f"{value:,.1f}" if name == "mean" else f"{value:,.0f}" for name, value in named.items()}

    def bins(self) -> list[tuple[int, int, int]]:
        """Return ``(from, to, number of texts)`` of equal ranges; the last one has all longer texts as well."""
        top = max(BINS, int(np.quantile(self.values, QUANTILES["99 %"])) + 1)
        width = -(-top // BINS)
        counts = np.bincount(np.minimum(self.values // width, BINS - 1), minlength=BINS)
        return [(number * width, (number + 1) * width - 1, int(count)) for number, count in enumerate(counts)]


def texts_of(splits: Splits) -> Iterator[str]:
    """Yield the texts of all splits."""
    for name in SPLITS:
        yield from in_slices(getattr(splits, name)["text"])


def lengths(splits: Splits) -> Lengths:
    """Return the lengths in words; in characters, if the language writes no spaces between words."""
    words, characters = _each(splits, lambda text: len(text.split())), _each(splits, len)
    spaced = characters.sum() <= SPACED * words.sum()
    return Lengths("words", words) if spaced else Lengths("characters", characters)


def _each(splits: Splits, measure: Callable[[str], int]) -> np.ndarray:
    return np.fromiter(map(measure, texts_of(splits)), dtype=np.int64)


def pieces(splits: Splits, tokenizer: PreTrainedTokenizerBase) -> Lengths:
    """Return the lengths in pieces of a tokenizer, special tokens included."""
    parts: Sequence[np.ndarray] = [
        tokenize(tokenizer, getattr(splits, name)["text"], NO_LIMIT).lengths for name in SPLITS
    ]
    return Lengths("pieces", np.concatenate(parts))
