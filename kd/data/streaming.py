"""A training split that is larger than memory: shards on disk, of which a few at a time are mixed and batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from torch.utils.data import Dataset, Sampler

from kd.contract import Batch
from kd.data.batch_weights import batch_shares, row_counts
from kd.data.batching import EncodedSplit, LengthBucketSampler, Ragged, batch_count, padding_share

POOL_SHARDS = 8
"""Shards that are mixed with one another; more mix better and hold more in memory."""

Place = tuple[EncodedSplit, np.ndarray]
"""Rows of a batch, and the pool that they are numbered in."""


@dataclass(frozen=True)
class StreamedSplit(Dataset):
    """Rows in memory, such as those with gold labels, and shards of further rows on disk.

    The ``index`` of a batch counts the rows in memory first, then those of the shards in their order.

    Args:
        resident: the rows in memory.
        sizes: ``[S]`` rows of each shard.
        load: reads a shard, with the columns that ``resident`` has.
    """

    resident: EncodedSplit
    sizes: np.ndarray
    load: Callable[[int], EncodedSplit]

    def __len__(self) -> int:
        return len(self.resident) + int(self.sizes.sum())

    def __getitem__(self, place: Place) -> Batch:
        pool, rows = place
        return pool[rows]

    def pool(self, resident: np.ndarray, shards: Sequence[int]) -> EncodedSplit:
        """Some of the rows in memory and some shards as one split, whose column ``index`` numbers the rows of all."""
        starts = len(self.resident) + np.cumsum(self.sizes) - self.sizes
        parts = [_numbered(self.resident.take(resident), resident)]
        parts += [_numbered(self.load(shard), starts[shard] + np.arange(self.sizes[shard])) for shard in shards]
        return joined(parts)

    def sampler(
        self, batch_size: int, shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> PoolSampler:
        """The order of its batches; it is always shuffled."""
        return PoolSampler(self, batch_size, seed, rank, world_size)

    def padding_share(self, sampler: PoolSampler) -> float:
        """The share of padding among the tokens of an epoch's first pool, which stands for the others."""
        pool, rows = None, []
        for place in sampler:
            pool = place[0] if pool is None else pool
            if place[0] is not pool:
                break
            rows.append(place[1])
        return padding_share(pool.tokens.lengths, rows)


class PoolSampler(Sampler[Place]):
    """Batches of rows of like length out of a split that is larger than memory.

    The shards are permuted and `POOL_SHARDS` of them at a time form a pool, together with an equal part of the rows in
    memory; a pool is permuted and cut into batches as `LengthBucketSampler` does it. What a pool leaves over goes into
    the next one. The order depends on ``seed`` and the epoch alone. Every row comes exactly once an epoch over all
    ranks, and all ranks get as many batches.

    Args:
        split: the rows.
        batch_size: rows a batch and rank.
        seed: of the permutations.
        rank, world_size: this process among those that share the rows.
    """

    def __init__(self, split: StreamedSplit, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1):
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.shares: np.ndarray | None = None

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return batch_count(len(self.split), self.batch_size, self.world_size)

    def global_batches(self) -> None:
        """Not known before the shards are read; see `follow`."""

    def follow(self, accumulate: int, count: int) -> np.ndarray:
        """Say what each batch counts, from the next epoch that is begun.

        Args:
            accumulate: batches an optimizer step.
            count: batches that are trained on an epoch.

        Returns:
            ``[count, 2]`` of `kd.data.batch_weights.batch_shares`, filled in while the batches are given out.
        """
        self.accumulate, self.shares = accumulate, np.ones((count, 2))
        return self.shares

    def own(self, rows: np.ndarray) -> np.ndarray:
        """This rank's part of a batch."""
        return np.array_split(rows, self.world_size)[self.rank]

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
        """The batches over all ranks."""
        generator = np.random.default_rng([self.seed, self.epoch])
        shards = generator.permutation(len(self.split.sizes))
        pools = [shards[start : start + POOL_SHARDS] for start in range(0, len(shards), POOL_SHARDS)]
        resident = np.array_split(generator.permutation(len(self.split.resident)), len(pools))
        whole, rest = self.batch_size * self.world_size, []
        for number, (some, more) in enumerate(zip(resident, pools, strict=True), start=1):
            pool = joined([*rest, self.split.pool(some, more)])
            rows = generator.permutation(len(pool))
            # One whole batch stays for the next pool, which the rows at the very end may join.
            used = len(rows) if number == len(pools) else max(0, len(rows) // whole - 1) * whole
            seed = int(generator.integers(2**32))
            rest = [pool.take(rows[used:])]
            if used:
                lengths = pool.tokens.lengths[rows[:used]]
                cut = LengthBucketSampler(lengths, self.batch_size, True, seed, self.rank, self.world_size)
                for batch in cut.global_batches():
                    yield pool, rows[batch]


def joined(parts: Sequence[EncodedSplit]) -> EncodedSplit:
    """The rows of all parts as one split, in memory; the parts have the same columns."""
    first = parts[0]
    columns = {}
    for name, column in first.columns.items():
        values = [part.columns[name] for part in parts]
        columns[name] = Ragged.joined(values) if isinstance(column, Ragged) else np.concatenate(values)
    tokens, labels = Ragged.joined([part.tokens for part in parts]), np.concatenate([part.labels for part in parts])
    return replace(first, tokens=tokens, labels=labels, columns=columns)


def _numbered(split: EncodedSplit, index: np.ndarray) -> EncodedSplit:
    return replace(split, columns={**split.columns, "index": index})
