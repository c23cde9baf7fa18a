"""The transfer set of a run that streams it: shards of texts, the student's tokens and the teacher's logits for each.

``<outputs>/transfer/<key>/`` holds the texts (`kd.data.shards`) and, below ``teacher_cache``, a cache of tokens or of
logits for every shard, found by the hash of its texts: whole or not there, checked when it is read, and built anew
where it is damaged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from transformers import PreTrainedTokenizerBase

from kd.contract import IGNORED_LABEL
from kd.data.batching import EncodedSplit, Ragged, StoredTexts, in_slices, tokenize
from kd.data.shards import TextShards
from kd.data.slices import Source
from kd.data.sources import Splits
from kd.data.splits import text_keys
from kd.data.streaming import StreamedSplit
from kd.data.tokenizers import tokenizer_fingerprint
from kd.run.identity import fingerprint
from kd.storage.assets import resolve
from kd.storage.pieces import share
from kd.teacher import cache as teacher_cache
from kd.teacher.outputs import Answers
from kd.teacher.ready import CACHE

log = logging.getLogger(__name__)

VOCABULARY_ROWS = 262_144
"""Transfer rows, as many of every shard, that a vocabulary is learnt from beside all rows of the training split."""
ROWS_AT_ONCE = 4096

_fingerprint = lru_cache(maxsize=8)(tokenizer_fingerprint)


class ShardTexts(StoredTexts):
    """The texts of one shard, read when they are asked for."""

    def __init__(self, store: TextShards, number: int):
        self.store, self.number = store, number
        self.hash = store.shards[number].hash

    @cached_property
    def _texts(self) -> list[str]:
        return self.store.texts(self.number)

    def __len__(self) -> int:
        return self.store.shards[self.number].rows

    def __getitem__(self, rows):
        return self._texts[rows]

    def key(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> teacher_cache.CacheKey:
        """Names the tokens."""
        return teacher_cache.CacheKey("", _fingerprint(tokenizer), max_length, "input_ids", self.hash)

    def tokens(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Ragged:
        """As the tokenizer cuts them, in the smallest integers that hold its vocabulary."""
        key = self.key(tokenizer, max_length)
        kind = np.uint16 if len(tokenizer) <= 1 << 16 else np.int32

        @lru_cache(maxsize=1)
        def cut() -> Ragged:
            return tokenize(tokenizer, self._texts, max_length)

        def compute(_: list[str]) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
            for start in range(0, len(self), ROWS_AT_ONCE):
                rows = np.arange(start, min(start + ROWS_AT_ONCE, len(self)))
                ids, _ = cut().padded(rows, 0)
                yield rows, {"input_ids": ids.numpy().astype(kind)[..., None]}

        note = {"split": f"transfer {self.number}"}
        folder = self.store.place / CACHE
        values, offsets = teacher_cache.obtain(folder, [key], lambda: cut().lengths, compute, note)[key.column]
        return Ragged(values[:, 0], offsets)


@dataclass(frozen=True)
class Transfer:
    """The streamed transfer set of a run.

    Args:
        store: its texts.
        max_length: tokens after which the student's texts are cut.
    """

    store: TextShards
    max_length: int

    @classmethod
    def of(cls, config: DictConfig, splits: Splits) -> Transfer:
        """The texts of ``data.unlabelled`` that stand in no split, read if nobody has done it before.

        Raises:
            KDError: a file that cannot be read, or none of its texts can be used.
        """
        data = config.data
        places = [data.unlabelled] if isinstance(data.unlabelled, str) else data.unlabelled
        files = [Path(resolve(place)) for place in places]
        sides = {text_keys(text)[1] for split in (splits.validation, splits.test) for text in in_slices(split["text"])}
        known = {text_keys(text)[0] for text in in_slices(splits.train["text"])}
        source = Source(
            files,
            fingerprint({"unlabelled": [str(file) for file in files]}),
            data.text,
            data.encoding,
            frozenset(sides),
            frozenset(known),
            data.deduplicate,
            data.shard_rows,
        )
        store = TextShards(Path(config.outputs) / "transfer", source, teacher_cache.texts_hash)
        log.info("%s", store.report())
        return cls(store, data.max_length)

    def sample(self) -> Iterator[str]:
        """Texts to learn a vocabulary from: all, or where there are many the beginnings of all shards."""
        most = -(-VOCABULARY_ROWS // len(self.store))
        for number in range(len(self.store)):
            yield from self.store.texts(number)[:most]

    def label(self, tokenizer: PreTrainedTokenizerBase, answers: Answers) -> None:
        """Cut and label what is not yet, shard by shard, with whoever else is at it."""
        folder, outputs = self.store.place / CACHE, self.store.place

        def done(number: int) -> bool:
            texts = ShardTexts(self.store, number)
            lacking = teacher_cache.absent(folder, [texts.key(tokenizer, self.max_length)])
            return not lacking and answers.teacher.labelled_in(texts, outputs) is not None

        def build(number: int) -> None:
            texts = ShardTexts(self.store, number)
            texts.tokens(tokenizer, self.max_length)
            answers.teacher.cached(texts, f"transfer {number + 1} of {len(self.store)}", outputs)

        share(folder, len(self.store), done, build)
        shards = (ShardTexts(self.store, number) for number in range(len(self.store)))
        took = sum(answers.teacher.labelled_in(texts, outputs) or 0.0 for texts in shards)
        answers.seconds["train"] = answers.seconds.get("train", 0.0) + took

    def split(self, resident: EncodedSplit, tokenizer: PreTrainedTokenizerBase, answers: Answers) -> StreamedSplit:
        """The labelled rows, and the shards with the teacher's logits."""

        def load(number: int) -> EncodedSplit:
            texts = ShardTexts(self.store, number)
            tokens = texts.tokens(tokenizer, self.max_length)
            found, _ = answers.teacher.cached(texts, f"transfer {number + 1}", self.store.place)
            labels = np.full(len(texts), IGNORED_LABEL)
            return EncodedSplit(tokens, labels, resident.padding, columns={"teacher_logits": found["logits"]})

        sizes = np.array([shard.rows for shard in self.store.shards])
        return StreamedSplit(resident, sizes, load)
