"""Token rows of unequal length: kept ragged, batched by length, padded only to the longest in a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from kd.contract import Batch
from kd.data.wordwise import word_cutter

TOKENIZE_CHUNK = 1_000
"""Texts a call to the tokenizer: enough for its threads, few enough to keep memory flat."""
CUT_CHUNK = 16_384
"""Texts that share their words: more of them cost less each and hold more at once."""


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length in one array: row i is ``values[offsets[i]:offsets[i + 1]]``."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Ragged:
        """These rows, in this order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        places = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[places], offsets)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, one part after the other."""
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(np.concatenate([part.values for part in parts]), offsets)

    def padded(self, rows: Sequence[int], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows right-padded to the longest of them.

        Returns:
            ids ``[B, L]`` int64 and attention mask ``[B, L]`` int64, with L at least 1.
        """
        rows = np.asarray(rows, dtype=np.int64)
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        columns = np.arange(max(1, lengths.max(initial=0)))
        mask = columns < lengths[:, None]
        ids = np.full(mask.shape, padding, dtype=np.int64)
        ids[mask] = self.values[(starts[:, None] + columns)[mask]]
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))

    def vectors(self, rows: Sequence[int]) -> torch.Tensor:
        """Rows of vectors ``[B, L, d]``, zero after the end of each; the values are ``[sum of lengths, d]``."""
        rows = np.asarray(rows, dtype=np.int64)
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        padded = np.zeros((len(rows), max(1, lengths.max(initial=0)), *self.values.shape[1:]), self.values.dtype)
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            padded[row, :length] = self.values[start : start + length]
        return torch.from_numpy(padded)


def in_slices(texts: Sequence[str]) -> Iterator[str]:
    """The texts one by one, read many at a time: what a column of a data set gives far faster."""
    return chain.from_iterable(texts[start : start + TOKENIZE_CHUNK] for start in range(0, len(texts), TOKENIZE_CHUNK))


def labels_of(split: datasets.Dataset) -> np.ndarray:
    """The label column ``[N]`` int64, straight from Arrow."""
    return split.with_format("numpy")["label"][:].astype(np.int64)


class StoredTexts(Sequence[str], ABC):
    """Texts on disk, of which most is known without reading them."""

    hash: str
    """As `kd.teacher.cache.texts_hash` gives it."""

    @abstractmethod
    def tokens(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Ragged:
        """As `tokenize` cuts them; kept on disk as well."""


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> Ragged:
    """Token ids of all texts, special tokens included, cut at ``max_length``."""
    if isinstance(texts, StoredTexts):
        return texts.tokens(tokenizer, max_length)
    cutter = word_cutter(tokenizer)
    pieces, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    size = CUT_CHUNK if cutter else TOKENIZE_CHUNK
    for start in range(0, len(texts), size):
        slice_ = list(texts[start : start + size])
        ids, counts = cutter(slice_, max_length) if cutter else _one_by_one(tokenizer, slice_, max_length)
        pieces.append(ids)
        lengths.append(counts)
    return Ragged(np.concatenate(pieces), np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)]))


def _one_by_one(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> tuple[np.ndarray, np.ndarray]:
    rows = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    return np.fromiter(chain.from_iterable(rows), dtype=np.int32), np.array([len(row) for row in rows], dtype=np.int64)


@dataclass(frozen=True)
class EncodedSplit(Dataset):
    """A split ready to batch; indexing with a list of rows gives a `kd.contract.Batch`.

    Args:
        tokens: the student's token ids.
        labels: ``[N]``, -100 where there is none.
        padding: the student tokenizer's padding id.
        teacher_tokens: the teacher's token ids, only where a live teacher reads another tokenizer.
        teacher_padding: the teacher tokenizer's padding id.
        columns: further arrays of N rows that travel with the batch, such as ``teacher_logits``; `Ragged`
            where a row holds a vector for each of its tokens.
    """

    tokens: Ragged
    labels: np.ndarray
    padding: int
    teacher_tokens: Ragged | None = None
    teacher_padding: int = 0
    columns: Mapping[str, np.ndarray | Ragged] = field(default_factory=dict)

    def __post_init__(self):
        for name, column in {"labels": self.labels, **self.columns}.items():
            if len(column) != len(self.tokens):
                raise ValueError(f"column '{name}' has {len(column)} rows, the split has {len(self.tokens)}")

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        rows = np.asarray(rows, dtype=np.int64)
        input_ids, attention_mask = self.tokens.padded(rows, self.padding)
        batch = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": torch.from_numpy(self.labels[rows]),
            "index": torch.from_numpy(rows),
        }
        if self.teacher_tokens is not None:
            ids, mask = self.teacher_tokens.padded(rows, self.teacher_padding)
            batch |= {"teacher_input_ids": ids, "teacher_attention_mask": mask}
        return batch | {name: _stacked(column, rows) for name, column in self.columns.items()}

    def take(self, rows: np.ndarray) -> EncodedSplit:
        """These rows, in this order, as a split of their own."""
        columns = {
            name: column.take(rows) if isinstance(column, Ragged) else column[rows]
            for name, column in self.columns.items()
        }
        return replace(self, tokens=self.tokens.take(rows), labels=self.labels[rows], columns=columns)

    def sampler(
        self, batch_size: int, shuffle: bool = False, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> LengthBucketSampler:
        """The order of its batches."""
        return LengthBucketSampler(self.tokens.lengths, batch_size, shuffle, seed, rank, world_size)

    def padding_share(self, sampler: LengthBucketSampler) -> float:
        """The share of padding among the tokens of an epoch."""
        return padding_share(self.tokens.lengths, list(sampler))


def _stacked(column: np.ndarray | Ragged, rows: np.ndarray) -> torch.Tensor:
    return column.vectors(rows) if isinstance(column, Ragged) else torch.from_numpy(np.array(column[rows]))


class LengthBucketSampler(Sampler[list[int]]):
    """Batches of rows of like length.

    Shuffled: the rows are permuted, cut into pools of ``pool`` batches, sorted by length within a
    pool, cut into batches, and the batches are permuted. Not shuffled: sorted by length once, longest
    first, so that running out of memory shows in the first batch. The order depends on ``seed`` and the
    epoch alone. Every row comes exactly once an epoch over all ranks, and all ranks get as many batches.

    Args:
        lengths: ``[N]`` tokens a row.
        batch_size: rows a batch and rank.
        shuffle: permute anew each epoch.
        seed: of the permutations.
        rank, world_size: this process among those that share the rows.
        pool: batches a pool; larger pads less and mixes less.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pool: int = 50,
    ):
        self.lengths, self.batch_size, self.shuffle, self.seed = lengths, batch_size, shuffle, seed
        self.rank, self.world_size, self.pool = rank, world_size, pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return batch_count(len(self.lengths), self.batch_size, self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.global_batches():
            yield self.own(rows).tolist()

    def own(self, rows: np.ndarray) -> np.ndarray:
        """This rank's part of a batch."""
        return np.array_split(rows, self.world_size)[self.rank]

    def global_batches(self) -> list[np.ndarray]:
        """The rows of each batch of this epoch, over all ranks."""
        whole = self.batch_size * self.world_size
        if not self.shuffle:
            return self._cut(np.argsort(-self.lengths, kind="stable"), whole)
        generator = np.random.default_rng([self.seed, self.epoch])
        rows = generator.permutation(len(self.lengths))
        # A rest too small to give every rank a row must sit at the very end, where it joins the batch before it.
        pools = [rows[start : start + whole * self.pool] for start in range(0, len(rows), whole * self.pool)]
        if len(pools) > 1 and len(pools[-1]) < self.world_size:
            pools[-2:] = [np.concatenate(pools[-2:])]
        batches = []
        for rows in pools:
            batches += self._cut(rows[np.argsort(self.lengths[rows], kind="stable")], whole)
        return [batches[position] for position in generator.permutation(len(batches))]

    def _cut(self, rows: np.ndarray, size: int) -> list[np.ndarray]:
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        if len(batches) > 1 and len(batches[-1]) < self.world_size:
            batches[-2:] = [np.concatenate(batches[-2:])]
        return batches


def batch_count(rows: int, batch_size: int, world_size: int) -> int:
    """Batches a rank and epoch: a rest that cannot give every rank a row joins the batch before it."""
    batches, rest = divmod(rows, batch_size * world_size)
    return batches + (rest >= world_size or batches == 0)


def padding_share(lengths: np.ndarray, batches: Sequence[Sequence[int]]) -> float:
    """The share of padding among all tokens that these batches hold."""
    real = sum(int(lengths[rows].sum()) for rows in batches)
    total = sum(len(rows) * int(lengths[rows].max()) for rows in batches)
    return 1 - real / total
