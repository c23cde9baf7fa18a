"""Tokenise texts, batch rows of similar length, and pad each batch only to its longest row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypeVar

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from kd.contract import Batch
from kd.data.wordwise import wordwise_tokenizer

TOKENIZE_CHUNK = 1_000
"""Texts in one call of the tokenizer: enough for its threads, few enough for little memory."""
WORDWISE_CHUNK = 16_384
"""Texts that are tokenised word by word at a time: more texts take less time each, but more memory."""


Item = TypeVar("Item")
Indices = Sequence[int] | np.ndarray
"""Numbers of rows."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in one array. Row i is ``values[offsets[i]:offsets[i + 1]]``."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @classmethod
    def joined(cls, values: Sequence[np.ndarray], lengths: Sequence[np.ndarray]) -> Ragged:
        """Return rows from parts of their values and of their lengths."""
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
        return cls(np.concatenate(values), offsets)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Ragged:
        """Return these rows, in this order."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        places = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[places], offsets)

    def padded(self, rows: Indices, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return rows of token ids, padded on the right to the longest of them.

        Returns:
            ids and attention mask, both ``[B, L]`` int64, with L at least 1.
        """
        ids, mask = self._padded(np.asarray(rows, dtype=np.int64), padding, np.dtype(np.int64))
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))

    def vectors(self, rows: Indices) -> torch.Tensor:
        """Return rows of vectors ``[B, L, d]``, padded with zeros, if the values are ``[sum of lengths, d]``."""
        return torch.from_numpy(self._padded(np.asarray(rows, dtype=np.int64), 0, self.values.dtype)[0])

    def _padded(self, rows: np.ndarray, padding: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows side by side, and the mask of what is no padding."""
        taken = self.take(rows)
        mask = np.arange(max(1, taken.lengths.max(initial=0))) < taken.lengths[:, None]
        padded = np.full((*mask.shape, *self.values.shape[1:]), padding, dtype)
        padded[mask] = taken.values
        return padded, mask


def in_slices(texts: Sequence[str]) -> Iterator[str]:
    """Yield texts one by one, but read them in slices, which is far faster for a column of a data set."""
    return chain.from_iterable(texts[start : start + TOKENIZE_CHUNK] for start in range(0, len(texts), TOKENIZE_CHUNK))


def labels_of(split: datasets.Dataset) -> np.ndarray:
    """Return the label column, ``[N]`` int64."""
    return split.with_format("numpy")["label"][:].astype(np.int64)


class StoredTexts(Sequence[str], ABC):
    """Texts on disk whose number, hash and token ids are available without reading the texts."""

    hash: str
    """The result of `kd.teacher.cache.texts_hash`."""

    @abstractmethod
    def tokens(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Ragged:
        """Return the result of `tokenize`, which is also kept on disk."""


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> Ragged:
    """Return the token ids of texts with special tokens, truncated to ``max_length`` tokens."""
    if isinstance(texts, StoredTexts):
        return texts.tokens(tokenizer, max_length)
    wordwise = wordwise_tokenizer(tokenizer)
    pieces, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    size = WORDWISE_CHUNK if wordwise else TOKENIZE_CHUNK
    for start in range(0, len(texts), size):
        slice_ = list(texts[start : start + size])
        ids, counts = wordwise(slice_, max_length) if wordwise else _one_by_one(tokenizer, slice_, max_length)
        pieces.append(ids)
        lengths.append(counts)
    return Ragged.joined(pieces, lengths)


def _one_by_one(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> tuple[np.ndarray, np.ndarray]:
    rows = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    return np.fromiter(chain.from_iterable(rows), dtype=np.int32), np.array([len(row) for row in rows], dtype=np.int64)


@dataclass(frozen=True)
class EncodedSplit(Dataset):
    """A tokenised split. Indexing it with a list of rows gives a `kd.contract.Batch`.

    Args:
        tokens: token ids for the student.
        labels: label ids ``[N]``; -100 means that the row has none.
        padding: padding id of the student's tokenizer.
        teacher_tokens: token ids for the teacher, only if it runs during training and has another tokenizer.
        teacher_padding: padding id of the teacher's tokenizer.
        columns: more arrays of N rows for the batch, such as ``teacher_logits``; `Ragged` if a row has a vector for
            each of its tokens.
    """

    tokens: Ragged
    labels: np.ndarray
    padding: int
    teacher_tokens: Ragged | None = None
    teacher_padding: int = 0
    columns: Mapping[str, np.ndarray | Ragged] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, column in {"labels": self.labels, **self.columns}.items():
            if len(column) != len(self.tokens):
                raise ValueError(f"column '{name}' has {len(column)} rows, the split has {len(self.tokens)}")

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, batch_rows: Indices) -> Batch:
        rows = np.asarray(batch_rows, dtype=np.int64)
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
        for name, column in self.columns.items():
            own = column.vectors(rows) if isinstance(column, Ragged) else torch.from_numpy(np.array(column[rows]))
            batch[name] = own
        return batch

    def take(self, rows: np.ndarray) -> EncodedSplit:
        """Return a split with these rows, in this order."""
        columns = {
            name: column.take(rows) if isinstance(column, Ragged) else column[rows]
            for name, column in self.columns.items()
        }
        return replace(self, tokens=self.tokens.take(rows), labels=self.labels[rows], columns=columns)

    def sampler(
        self, batch_size: int, shuffle: bool = False, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> LengthBucketSampler:
        """Return a sampler of batches. The arguments are those of `LengthBucketSampler`."""
        return LengthBucketSampler(self.tokens.lengths, batch_size, shuffle, seed, rank, world_size)

    def padding_share(self, batch_size: int, seed: int) -> float:
        """Return the share of padding among all tokens of an epoch."""
        return padding_share(self.tokens.lengths, list(self.sampler(batch_size, True, seed)))


class BatchSampler(Sampler[Item]):
    """Samples batches of rows of similar length for one rank.

    The order depends only on ``seed`` and the epoch. In an epoch each row is in exactly one batch of one rank, and all
    ranks have the same number of batches.

    Args:
        rows: number of rows of all ranks.
        batch_size: rows in a batch of one rank.
        seed: of the permutations.
        rank, world_size: number of this process, and of all processes.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, rank: int, world_size: int):
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        # A last batch with fewer rows than ranks is joined to another one.
        batches, rest = divmod(self.rows, self.batch_size * self.world_size)
        return batches + (rest >= self.world_size or batches == 0)

    def own(self, rows: np.ndarray) -> np.ndarray:
        """Return this rank's part of a batch."""
        return np.array_split(rows, self.world_size)[self.rank]


class LengthBucketSampler(BatchSampler[list[int]]):
    """Samples batches from rows in memory.

    With ``shuffle``, the rows are permuted and divided into pools of ``pool`` batches. Each pool is sorted by length
    and divided into batches, and all batches are permuted. Without ``shuffle``, the rows are sorted by length, longest
    first, so that a lack of memory shows in the first batch.

    Args:
        lengths: ``[N]`` number of tokens in each row.
        shuffle: whether to permute the rows, differently in each epoch.
        pool: batches in a pool; a larger pool needs less padding, but its batches are less random.
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
        super().__init__(len(lengths), batch_size, seed, rank, world_size)
        self.lengths, self.shuffle, self.pool = lengths, shuffle, pool

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.global_batches():
            yield self.own(rows).tolist()

    def global_batches(self) -> list[np.ndarray]:
        """Return the rows of each batch of this epoch, over all ranks."""
        whole = self.batch_size * self.world_size
        if not self.shuffle:
            return self._divided(np.argsort(-self.lengths, kind="stable"), whole)
        generator = np.random.default_rng([self.seed, self.epoch])
        batches = []
        for rows in self._divided(generator.permutation(len(self.lengths)), whole * self.pool):
            batches += self._divided(rows[np.argsort(self.lengths[rows], kind="stable")], whole)
        return [batches[position] for position in generator.permutation(len(batches))]

    def _divided(self, rows: np.ndarray, size: int) -> list[np.ndarray]:
        # A last part with fewer rows than ranks cannot be a batch, so it is joined to the part before it.
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        if len(batches) > 1 and len(batches[-1]) < self.world_size:
            batches[-2:] = [np.concatenate(batches[-2:])]
        return batches


def padding_share(lengths: np.ndarray, batches: Sequence[Indices]) -> float:
    """Return the share of padding among all tokens of these batches."""
    real = sum(int(lengths[rows].sum()) for rows in batches)
    total = sum(len(rows) * int(lengths[rows].max()) for rows in batches)
    return 1 - real / total
