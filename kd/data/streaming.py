"""Train on a split that is larger than memory: load a few of its shards at a time, and mix and batch their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from kd.contract import Batch
from kd.data.batch_weights import batch_shares, row_counts
from kd.data.batching import BatchSampler, EncodedSplit, Indices, LengthBucketSampler, Ragged, padding_share

POOL_SHARDS = 8
"""Shards whose rows are mixed with each other. More shards mix better, but need more memory."""

Place = tuple[EncodedSplit, np.ndarray]
"""A pool of rows in memory, and the numbers of a batch's rows in this pool."""


@dataclass(frozen=True)
class StreamedSplit(Dataset):
    """Rows in memory, such as those with gold labels, and shards of more rows on disk.

    The column ``index`` of a batch numbers the rows in memory first, then those of the shards, in order.

    Args:
        resident: the rows in memory.
        sizes: ``[S]`` number of rows in each shard.
        load: loads a shard, with the same columns as ``resident``.
    """

    resident: EncodedSplit
    sizes: np.ndarray
    load: Callable[[int], EncodedSplit]

    def __len__(self) -> int:
        return len(self.resident) + int(self.sizes.sum())

    def __getitem__(self, place: Place) -> Batch:
        pool, rows = place
        return pool[rows]

    def pool(self, resident: np.ndarray, shards: Indices) -> EncodedSplit:
        """Join some of the rows in memory and some shards. The column ``index`` is that of the whole split."""
        starts = len(self.resident) + np.cumsum(self.sizes) - self.sizes
        parts = [_numbered(self.resident.take(resident), resident)]
        parts += [_numbered(self.load(shard), starts[shard] + np.arange(self.sizes[shard])) for shard in shards]
        return joined(parts)

    def sampler(
        self, batch_size: int, shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> PoolSampler:
        """Return a sampler of batches. It always shuffles."""
        return PoolSampler(self, batch_size, seed, rank, world_size)

    def padding_share(self, batch_size: int, seed: int) -> float:
        """Return the share of padding among the tokens of an epoch's first pool, as an estimate for all of them."""
        _, places = next(groupby(self.sampler(batch_size, seed=seed), key=lambda place: id(place[0])))
        pools, rows = zip(*places, strict=True)
        return padding_share(pools[0].tokens.lengths, rows)


class PoolSampler(BatchSampler[Place]):
    """Samples batches from a split that is larger than memory.

    The shards are permuted. Each `POOL_SHARDS` of them form a pool, with an equal part of the rows in memory. A pool is
    permuted and divided into batches as in `LengthBucketSampler`, and its last rows are moved to the next pool.

    Args:
        split: the rows.
    """

    def __init__(self, split: StreamedSplit, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1):
        super().__init__(len(split), batch_size, seed, rank, world_size)
        self.split = split
        self.shares: np.ndarray | None = None

    def global_batches(self) -> None:
        """Return None: the batches are unknown until the shards are read. See `follow`."""

    def follow(self, accumulate: int, count: int) -> np.ndarray:
        """Compute the weights of the batches, from the next epoch on.

        Args:
            accumulate: batches in an optimizer step.
            count: batches in an epoch that are trained on.

        Returns:
            the array ``[count, 2]`` of `kd.data.batch_weights.batch_shares`. It is filled in during the epoch: the
            weights of a batch are there when the sampler yields it.
        """
        self.accumulate, self.shares = accumulate, np.ones((count, 2))
        return self.shares

    def __iter__(self) -> Iterator[Place]:
        batches, given = self._batches(), 0
        if self.shares is None:
            for pool, rows in batches:
                yield pool, self.own(rows)
            return
        while step := list(islice(batches, min(self.accumulate, len(self.shares) - given))):
            counts = [row_counts(pool.labels[rows], pool.labels[self.own(rows)]) for pool, rows in step]
            self.shares[given : given + len(step)] = batch_shares(counts, self.accumulate, self.world_size)
            given += len(step)
            for pool, rows in step:
                yield pool, self.own(rows)

    def _batches(self) -> Iterator[Place]:
        """Yield the batches over all ranks."""
        generator = np.random.default_rng([self.seed, self.epoch])
        shards = generator.permutation(len(self.split.sizes))
        pools = [shards[start : start + POOL_SHARDS] for start in range(0, len(shards), POOL_SHARDS)]
        resident = np.array_split(generator.permutation(len(self.split.resident)), len(pools))
        whole, rest = self.batch_size * self.world_size, list[EncodedSplit]()
        for number, (some, more) in enumerate(zip(resident, pools, strict=True), start=1):
            pool = joined([*rest, self.split.pool(some, more)])
            rows = generator.permutation(len(pool))
            # One whole batch is left for the next pool: at the end, fewer rows than ranks can be joined to it.
            used = len(rows) if number == len(pools) else max(0, len(rows) // whole - 1) * whole
            seed = int(generator.integers(2**32))
            rest = [pool.take(rows[used:])]
            if used:
                lengths = pool.tokens.lengths[rows[:used]]
                sampler = LengthBucketSampler(lengths, self.batch_size, True, seed, self.rank, self.world_size)
                for batch in sampler.global_batches():
                    yield pool, rows[batch]


def joined(parts: Sequence[EncodedSplit]) -> EncodedSplit:
    """Join parts with the same columns into one split in memory."""

    def join(values: Sequence[Any]) -> Any:
        if not isinstance(values[0], Ragged):
            return np.concatenate(values)
        return Ragged.joined([part.values for part in values], [part.lengths for part in values])

    tokens, labels = join([part.tokens for part in parts]), join([part.labels for part in parts])
    columns = {name: join([part.columns[name] for part in parts]) for name in parts[0].columns}
    return replace(parts[0], tokens=tokens, labels=labels, columns=columns)


def _numbered(split: EncodedSplit, index: np.ndarray) -> EncodedSplit:
    return replace(split, columns={**split.columns, "index": index})
