"""A transfer set that a run streams: shards of texts, with the student's tokens and the teacher's logits of each shard.

``<outputs>/transfer/<key>/`` contains the texts (`kd.data.shards`). Below it, ``teacher_cache`` contains a cache of
tokens and a cache of logits for every shard, under the hash of its texts. Each cache is complete or missing; it is
checked when it is read, and rebuilt if it is damaged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedTokenizerBase

from kd.contract import IGNORED_LABEL
from kd.data.batching import EncodedSplit, Ragged, StoredTexts, in_slices, tokenize
from kd.data.dialect import Reading
from kd.data.folders import texts_in
from kd.data.shards import TextShards
from kd.data.slices import Source
from kd.data.sources import Splits
from kd.data.splits import text_keys
from kd.data.streaming import StreamedSplit
from kd.data.tokenizers import tokenizer_fingerprint
from kd.run.identity import fingerprint
from kd.storage.pieces import share
from kd.teacher import cache as teacher_cache
from kd.teacher.cache import CacheKey
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.ready import CACHE, Wanted

log = logging.getLogger(__name__)

VOCABULARY_ROWS = 262_144
"""Transfer rows, the same number from every shard, from which a vocabulary is learnt beside all training rows."""
ROWS_AT_ONCE = 4096

_fingerprint = lru_cache(maxsize=8)(tokenizer_fingerprint)


class ShardTexts(StoredTexts):
    """The texts of one shard, read on demand."""

    def __init__(self, store: TextShards, number: int):
        self.store, self.number = store, number
        self.hash = store.shards[number].hash

    @cached_property
    def _texts(self) -> list[str]:
        return self.store.texts(self.number)

    def __len__(self) -> int:
        return self.store.shards[self.number].rows

    def __getitem__(self, rows: Any) -> Any:
        return self._texts[rows]

    def key(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> CacheKey:
        """Return the cache key of the tokens."""
        return CacheKey("", _fingerprint(tokenizer), max_length, "input_ids", self.hash)

    def tokens(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Ragged:
        """Return the tokens from the cache, as the smallest integers that can represent the vocabulary."""
        key = self.key(tokenizer, max_length)
        kind = np.uint16 if len(tokenizer) <= 1 << 16 else np.int32

        @lru_cache(maxsize=1)
        def tokenized() -> Ragged:
            return tokenize(tokenizer, self._texts, max_length)

        def compute(missing: list[str]) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
            for start in range(0, len(self), ROWS_AT_ONCE):
                rows = range(start, min(start + ROWS_AT_ONCE, len(self)))
                ids, _ = tokenized().padded(rows, 0)
                yield np.array(rows), {"input_ids": ids.numpy().astype(kind)[..., None]}

        note = {"split": f"transfer {self.number}"}
        folder = self.store.place / CACHE
        values, offsets = teacher_cache.obtain(folder, [key], lambda: tokenized().lengths, compute, note)[key.column]
        return Ragged(values[:, 0], offsets)


@dataclass(frozen=True)
class Transfer:
    """The streamed transfer set of a run.

    Args:
        store: its texts.
        max_length: tokens after which the student's texts are truncated.
    """

    store: TextShards
    max_length: int

    @classmethod
    def of(cls, config: DictConfig, splits: Splits) -> Transfer:
        """Return the texts of ``data.unlabelled`` that are in no split; read them if no run has done so.

        Raises:
            KDError: a file cannot be read, or none of its texts can be used.
        """
        data = config.data
        given: Any = OmegaConf.to_container(data)
        files = texts_in(given["unlabelled"])
        sides = {text_keys(text)[1] for split in (splits.validation, splits.test) for text in in_slices(split["text"])}
        known = {text_keys(text)[0] for text in in_slices(splits.train["text"])}
        source = Source(
            files,
            fingerprint({"unlabelled": [str(file) for file in files]}),
            data.text,
            Reading(data.encoding, given.get("delimiter"), given.get("quoting"), given.get("header"), (data.text,)),
            frozenset(sides),
            frozenset(known),
            data.deduplicate,
            data.shard_rows,
        )
        store = TextShards(Path(config.outputs) / "transfer", source, teacher_cache.texts_hash)
        log.info("%s", store.report())
        return cls(store, data.max_length)

    def sample(self) -> Iterator[str]:
        """Yield the texts from which a vocabulary is learnt: all, or for a large set the beginning of each shard."""
        most = -(-VOCABULARY_ROWS // len(self.store))
        for number in range(len(self.store)):
            yield from self.store.texts(number)[:most]

    def label(self, tokenizer: PreTrainedTokenizerBase, teacher: TeacherOutputs) -> None:
        """Tokenise and label the missing shards; several processes can divide them among them."""
        folder, place, ready = self.store.place / CACHE, self.store.place, teacher.ready

        def done(number: int) -> bool:
            texts = ShardTexts(self.store, number)
            lacking = teacher_cache.absent(folder, [texts.key(tokenizer, self.max_length)])
            return not lacking and ready.labelled_in(texts, place) is not None

        def build(number: int) -> None:
            texts = ShardTexts(self.store, number)
            texts.tokens(tokenizer, self.max_length)
            name = f"transfer {number + 1} of {len(self.store)}"
            ready.cached(Wanted(texts, name, place, shared=teacher.outputs))

        share(folder, len(self.store), done, build)
        times = [ready.labelled_in(ShardTexts(self.store, number), place) for number in range(len(self.store))]
        teacher.seconds["train"] = teacher.seconds.get("train", 0.0) + sum(filter(None, times))

    def split(
        self, resident: EncodedSplit, tokenizer: PreTrainedTokenizerBase, teacher: TeacherOutputs
    ) -> StreamedSplit:
        """Return the labelled rows, followed by the shards with the teacher's logits."""

        def load(number: int) -> EncodedSplit:
            texts = ShardTexts(self.store, number)
            tokens = texts.tokens(tokenizer, self.max_length)
            wanted = Wanted(texts, f"transfer {number + 1}", self.store.place, shared=teacher.outputs)
            found, _ = teacher.ready.cached(wanted)
            labels = np.full(len(texts), IGNORED_LABEL)
            return EncodedSplit(tokens, labels, resident.padding, columns={"teacher_logits": found["logits"]})

        sizes = np.array([shard.rows for shard in self.store.shards])
        return StreamedSplit(resident, sizes, load)
