"""A trained teacher of one model: its logits and features for texts, from the cache or live."""

from __future__ import annotations

import functools
import logging
import math
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.progress import track
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from kd.contract import ATTENTION_OUTPUTS
from kd.data.batching import EncodedSplit, Ragged, StoredTexts, in_slices, tokenize
from kd.data.tokenizers import tokenizer_fingerprint
from kd.errors import KDError
from kd.features import attention
from kd.features.feature import Feature, bytes_a_row
from kd.measure.cost import parameter_counts
from kd.measure.inference import all_logits, outputs_by_row
from kd.methods.distillation import FrozenTeacher
from kd.storage.model_check import check_pair
from kd.storage.model_folder import folder_checksum, load_classifier, load_config, load_tokenizer
from kd.storage.pieces import share
from kd.teacher import cache as teacher_cache
from kd.teacher.by_text import TextStore, hashes
from kd.teacher.cache import CacheKey

log = logging.getLogger(__name__)

PRECISIONS = {"32-true": torch.float32, "bf16-true": torch.bfloat16}
"""The precisions in which a teacher can give outputs, by the names that Lightning uses."""
CACHE = "teacher_cache"
MOST_PADDING = 0.05
"""Largest share of padding in a batch that is labelled; it is most of the cost where few texts are new."""
KEEP_EVERY = 60.0
"""Seconds of labelling after which what was labelled is stored; a killed process loses less than that."""

Columns = dict[str, np.ndarray | Ragged]
"""Outputs for N rows by name: ``[N, ...]``, or `Ragged` for one vector a token."""


@dataclass(frozen=True)
class Wanted:
    """The outputs that are wanted of a teacher.

    Args:
        texts: N of them.
        split: the name of these texts in the log.
        outputs: the folder that contains the cache.
        features: beside the logits; stored in half precision.
        max_gb: refuse to store more than this, in 10^9 bytes.
        labels: gold labels ``[N]`` of training rows; only an ensemble reads them.
        shared: the folder of outputs whose logits by text are read and added to; None: ``outputs``.
        with_logits: false leaves the logits of a single model out.
    """

    texts: Sequence[str]
    split: str
    outputs: Path
    features: Collection[Feature] = ()
    max_gb: float = math.inf
    labels: np.ndarray | None = None
    shared: Path | None = None
    with_logits: bool = True

    @property
    def stored(self) -> Path:
        return self.shared or self.outputs


@dataclass(frozen=True)
class WithoutCaches:
    """A base of dataclasses that are pickled without their ``cached_property`` values."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class ReadyTeacher(WithoutCaches):
    """A teacher of one model that can give outputs.

    Args:
        name: its name in the configuration.
        folder: its Hugging Face folder.
        max_length: tokens after which texts are truncated.
        batch_size: rows of a batch.
        facts: what its training recorded; empty for a model that kd did not train.
        device: where the model runs.
        has_head: False for a backbone, which gives features but no logits.
        precision: of the model, a key of `PRECISIONS`.
    """

    name: str
    folder: Path
    max_length: int
    batch_size: int
    facts: dict[str, Any]
    device: str = "cpu"
    has_head: bool = True
    precision: str = "32-true"

    @property
    def members(self) -> list[ReadyTeacher]:
        return [self]

    @cached_property
    def checksum(self) -> str:
        """Return a hash of the model's folder, with the precision where this is not float32."""
        weights = folder_checksum(self.folder)
        return weights if self.precision == "32-true" else f"{weights}+{self.precision}"

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.folder)

    @cached_property
    def model(self) -> PreTrainedModel:
        """Return the live model, in evaluation mode.

        Raises:
            KDError: it cannot be read, or it does not work with its tokenizer.
        """
        model: Any = load_classifier(self.folder, new_head=not self.has_head)  # whose wrapped `to` has no usable type
        check_pair(self.folder, model, self.tokenizer, self.max_length)
        return model.to(self.device, PRECISIONS[self.precision])

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the tokenizer."""
        return tokenizer_fingerprint(self.tokenizer)

    def tokens(self, texts: Sequence[str]) -> Ragged:
        """Tokenise texts as the teacher reads them."""
        return tokenize(self.tokenizer, texts, self.max_length)

    @cached_property
    def config(self) -> PretrainedConfig:
        return load_config(self.folder)

    def key(self, texts: Sequence[str], column: str = "logits") -> CacheKey:
        """Return the cache key of one column of the teacher's outputs for these texts."""
        texts_hash = texts.hash if isinstance(texts, StoredTexts) else teacher_cache.texts_hash(in_slices(texts))
        return CacheKey(self.checksum, self.fingerprint, self.max_length, column, texts_hash)

    def labelled_in(self, texts: Sequence[str], outputs: Path) -> float | None:
        try:
            return teacher_cache.seconds(Path(outputs) / CACHE, self.key(texts))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def cached(self, wanted: Wanted) -> tuple[Columns, float]:
        """Return logits and features; see `kd.teacher.base.AnyReadyTeacher.cached`."""
        texts, split, folder = wanted.texts, wanted.split, wanted.outputs / CACHE
        by_column = {each.column: each for each in sorted(wanted.features, key=lambda each: each.column)}
        base = self.key(texts)
        keys = [replace(base, column=column) for column in (*(["logits"] if wanted.with_logits else []), *by_column)]
        tokens = functools.cache(functools.partial(self.tokens, texts))
        if absent := [by_column[name] for name in teacher_cache.absent(folder, keys) if name in by_column]:
            needed = require_room(self.config, absent, len(texts), len(tokens().values), split, wanted.max_gb)
            log.info("teacher: storing features of %d %s rows takes %.3g GB", len(texts), split, needed)
        if len(texts) > teacher_cache.PIECE_ROWS and (lacking := teacher_cache.absent(folder, keys)):
            parts = [key for key in keys if key.column in lacking]
            self._in_pieces(parts, wanted, folder, by_column)
        note: dict[str, Any] = {"teacher": self.name, "split": split}
        store = TextStore(wanted.stored / CACHE, base, cast(int, self.config.num_labels), self.name)

        def compute(missing: list[str]) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
            features = [by_column[name] for name in missing if name in by_column]
            by_text = hashes(in_slices(texts)) if "logits" in missing else None
            rows = np.arange(len(texts)) if features or by_text is None else new_rows(store, by_text)
            if len(rows):
                some = f"{len(rows)} of " * (len(rows) < len(texts))
                log.info("teacher: labelling %s%d %s rows (once): %s", some, len(texts), split, ", ".join(missing))
                prepare(self.model, features)
            for index, found in self._labelled(rows, tokens().take(rows), split, features, store, by_text):
                with np.errstate(over="ignore"):  # the cache refuses values that are not finite
                    yield index, {feature.column: value.astype(np.float16) for feature, value in found.items()}
            if by_text is not None:
                logits, seconds = store.find(by_text)
                if not features:  # replaces the time of this call, which took most logits from disk
                    note["seconds"] = round(float(seconds.sum()), 3)
                yield np.arange(len(texts)), {"logits": logits}

        columns = teacher_cache.obtain(folder, keys, lambda: tokens().lengths, compute, note)
        whole = {name: Ragged(*value) if isinstance(value, tuple) else value for name, value in columns.items()}
        return whole, teacher_cache.seconds(folder, keys[0])

    def _labelled(
        self,
        rows: np.ndarray,
        tokens: Ragged,
        split: str,
        features: Collection[Feature],
        store: TextStore,
        by_text: np.ndarray | None,
    ) -> Iterator[tuple[np.ndarray, dict[Feature, np.ndarray]]]:
        """Run the teacher over rows, store their logits by text, and yield row numbers and features.

        What was labelled is stored every minute, and also where an error or the user ends the work.
        """
        if not len(rows):
            return
        done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        start = stored = time.perf_counter()

        def keep() -> None:
            if done and by_text is not None:
                index, logits, seconds = map(np.concatenate, zip(*done, strict=True))
                done.clear()
                _, first = np.unique(by_text[index], return_index=True)
                store.add(by_text[index][first], logits[first], seconds[first])

        try:
            batches = self._batches(tokens, f"labelling {split}")
            for index, logits, found in outputs_by_row(self.model, batches, features):
                now = time.perf_counter()
                done.append((rows[index], logits, np.full(len(index), (now - start) / len(index))))
                if now - stored > KEEP_EVERY:
                    keep()
                    stored = time.perf_counter()
                if features:
                    yield rows[index], found
                start = time.perf_counter()
        finally:
            keep()

    def _in_pieces(self, keys: Sequence[CacheKey], wanted: Wanted, folder: Path, by_column: dict[str, Feature]) -> None:
        """Fill the cache with columns of many texts, in pieces that several processes can divide among them."""
        texts, split = wanted.texts, wanted.split
        size, whole = teacher_cache.PIECE_ROWS, replace(keys[0], column="pieces").digest
        starts = range(0, len(texts), size)
        texts_of = [self.key(texts[start : start + size]) for start in starts]
        parts = [[replace(key, column=each.column) for each in keys] for key in texts_of]
        outputs = folder / f"{whole}.pieces"
        pieces = outputs / CACHE

        def done(piece: int) -> bool:
            # In this order: another process removes the pieces as soon as the whole is stored.
            return not teacher_cache.absent(pieces, parts[piece]) or not teacher_cache.absent(folder, keys)

        def build(piece: int) -> None:
            start = starts[piece]
            features = [by_column[key.column] for key in keys if key.column in by_column]
            name, with_logits = f"{split} {start}-{min(start + size, len(texts))}", len(features) < len(keys)
            part = texts[start : start + size]
            self.cached(Wanted(part, name, outputs, features, shared=wanted.stored, with_logits=with_logits))

        pieces.mkdir(parents=True, exist_ok=True)
        share(outputs, len(parts), done, build)
        while not teacher_cache.join(folder, keys, pieces, parts, {"split": split}):
            share(outputs, len(parts), done, build)
        shutil.rmtree(outputs, ignore_errors=True)

    def live_logits(self, texts: Sequence[str]) -> np.ndarray:
        return all_logits(self.model, self._batches(self.tokens(texts), "teacher"), len(texts))

    def live(self, features: Collection[Feature] = ()) -> FrozenTeacher:
        prepare(self.model, features)
        return FrozenTeacher(self.model)

    def cost(self, model: PreTrainedModel | None = None) -> dict[str, Any]:
        """Return size and time of training; ``model`` replaces the stored one, of which it is a trained copy."""
        model = self.model if model is None else model
        return {
            "name": self.name,
            "training_seconds": self.facts.get("training_seconds"),
            "parameters": parameter_counts(model),
            "model_bytes": sum(f.stat().st_size for f in self.folder.iterdir() if f.suffix in (".safetensors", ".bin")),
        }

    def _batches(self, tokens: Ragged, title: str) -> Iterator:
        split = EncodedSplit(tokens, np.full(len(tokens), -100), self.tokenizer.pad_token_id)
        for rows in track(tight_batches(tokens.lengths, self.batch_size), description=title):
            yield split[rows]


def tight_batches(lengths: np.ndarray, most_rows: int, most_padding: float = MOST_PADDING) -> list[np.ndarray]:
    """Return the rows of batches, longest first, so that in each batch the share of padding stays below a limit.

    >>> [rows.tolist() for rows in tight_batches(np.array([20, 7, 20, 19, 7]), 128)]
    [[0, 2, 3], [1, 4]]
    """
    order, found, start = np.argsort(-lengths, kind="stable"), [], 0
    while start < len(order):
        ahead = lengths[order[start : start + most_rows]]
        padding = 1 - np.cumsum(ahead) / (np.arange(1, len(ahead) + 1) * max(1, ahead[0]))  # never falls
        size = max(1, int(np.searchsorted(padding, most_padding)))
        found.append(order[start : start + size])
        start += size
    return found


def new_rows(store: TextStore, by_text: np.ndarray) -> np.ndarray:
    """Return the first row of each text that is not stored yet, in the order of the rows."""
    first = np.sort(np.unique(by_text, return_index=True)[1])
    return first[np.isnan(store.find(by_text[first])[0]).any(axis=1)]


def require_room(
    config: PretrainedConfig, features: Collection[Feature], rows: int, tokens: int, split: str, max_gb: float
) -> float:
    """Return the size of a split's features in the cache, in 10^9 bytes.

    Args:
        tokens: of all rows together; only features with one vector per token depend on it.

    Raises:
        KDError: more than ``max_gb``.
    """
    needed = sum(bytes_a_row(config, feature, tokens / max(1, rows)) for feature in features) * rows / 1e9
    if needed > max_gb:
        columns = ", ".join(sorted(feature.column for feature in features))
        raise KDError(
            f"the teacher's features ({columns}) for {rows} {split} rows would take {needed:.3g} GB, and "
            f"cache.max_gb={max_gb:g} is the limit; raise it, ask for fewer layers or sentence vectors, or set "
            "cache.use=false"
        )
    return needed


def prepare(model: PreTrainedModel, features: Collection[Feature]) -> None:
    """Make a model record its attention if a feature needs it."""
    if any(feature.output in ATTENTION_OUTPUTS for feature in features):
        attention.prepare(model)
