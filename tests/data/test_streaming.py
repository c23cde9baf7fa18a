"""Batches of a split that is larger than memory."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from kd.contract import IGNORED_LABEL
from kd.data.batching import EncodedSplit, Ragged
from kd.data.module import TextDataModule
from kd.data.streaming import POOL_SHARDS, StreamedSplit
from tests.conftest import bare_trainer
from tests.end_to_end.test_strategies import supervised


def small_split(resident: int, sizes: list[int], loads: list[int] | None = None) -> StreamedSplit:
    starts = resident + np.cumsum(sizes) - sizes

    def part(first: int, rows: int) -> EncodedSplit:
        lengths = np.random.default_rng(first).integers(1, 9, rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        tokens = Ragged(np.repeat(first + np.arange(rows), np.diff(offsets)), offsets)
        return EncodedSplit(tokens, first + np.arange(rows), 0)

    def load(shard: int) -> EncodedSplit:
        if loads is not None:
            loads.append(shard)
        return part(starts[shard], sizes[shard])

    return StreamedSplit(part(0, resident), np.array(sizes), load)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
@pytest.mark.parametrize(("resident", "sizes"), [(5, [3] * 40), (1, [1]), (30, [17, 1, 2, 40, 8] * 5), (8, [64])])
def test_every_row_comes_once_an_epoch_and_all_ranks_get_as_many_batches(resident, sizes, batch_size, world_size):
    split = small_split(resident, sizes)
    if len(split) < world_size:
        pytest.skip("fewer rows than ranks")
    for epoch in (0, 1):
        ranks = []
        for rank in range(world_size):
            sampler = split.sampler(batch_size, seed=1, rank=rank, world_size=world_size)
            sampler.set_epoch(epoch)
            batches = [split[place] for place in sampler]
            assert len(batches) == len(sampler)
            assert all(len(batch["index"]) for batch in batches)
            for batch in batches:
                assert batch["index"].tolist() == batch["labels"].tolist() == batch["input_ids"][:, 0].tolist()
            ranks.append(batches)
        seen = chain.from_iterable(batch["index"].tolist() for batch in chain.from_iterable(ranks))
        assert sorted(seen) == list(range(len(split)))


def test_the_order_is_that_of_seed_and_epoch_and_mixes_in_the_rows_in_memory():
    def order(seed: int, epoch: int) -> list[int]:
        split = small_split(200, [50] * 40)
        sampler = split.sampler(10, seed=seed)
        sampler.set_epoch(epoch)
        return list(chain.from_iterable(split[place]["index"].tolist() for place in sampler))

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 1)
    resident = np.flatnonzero(np.array(order(0, 0)) < 200)
    quarters = np.histogram(resident, bins=4, range=(0, 2200))[0]
    assert quarters.min() > 20, "the rows with labels are spread over the epoch"


@pytest.mark.parametrize(("accumulate", "count"), [(1, 27), (4, 27), (4, 5)])
def test_each_batch_counts_by_its_share_of_the_step(accumulate, count):
    """Means over batches and ranks are means over the step's rows, and over its labelled rows."""
    unlabelled = small_split(31, [20] * 20)
    value = np.random.default_rng(0).normal(size=len(unlabelled))  # the loss of a row, by its index
    resident = replace(unlabelled.resident, labels=np.arange(31) % 2)

    def load(shard: int) -> EncodedSplit:
        return replace(unlabelled.load(shard), labels=np.full(20, IGNORED_LABEL))

    split = StreamedSplit(resident, unlabelled.sizes, load)
    samplers = [split.sampler(8, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    for sampler in samplers:
        sampler.follow(accumulate, count)
    steps: dict[int, list] = {}
    for number, places in enumerate(zip(*samplers, strict=True)):
        for sampler, place in zip(samplers, places, strict=True):
            batch = split[place]
            steps.setdefault(number // accumulate, []).append((batch, *sampler.shares[number]))
    assert len({len(step) for step in steps.values()}) == (1 if accumulate == 1 else 2), "the last one has fewer"
    for step in steps.values():
        index, labels = (np.concatenate([batch[key].numpy() for batch, _, _ in step]) for key in ("index", "labels"))
        rows = label = 0.0
        for batch, share, label_share in step:
            own, labelled = value[batch["index"]], batch["labels"].numpy() >= 0
            rows += own.mean() * share / (2 * accumulate)
            label += (own[labelled].mean() if labelled.any() else 0.0) * label_share * share / (2 * accumulate)
        assert rows == pytest.approx(value[index].mean())
        assert label == pytest.approx(value[index][labels >= 0].mean() if (labels >= 0).any() else 0.0)


def test_the_step_that_ends_a_limited_epoch_counts_whole():
    numbered = small_split(24, [20] * 8)
    split = StreamedSplit(two_labels(numbered.resident), numbered.sizes, lambda shard: two_labels(numbered.load(shard)))
    trainer = bare_trainer(max_epochs=1, limit_train_batches=5, limit_val_batches=0, accumulate_grad_batches=4)
    method = supervised()
    trainer.fit(method, TextDataModule(split, split.resident, 8))
    assert trainer.global_step == 2
    assert method.shares[:, 0] == pytest.approx([1, 1, 1, 1, 4])


def two_labels(split: EncodedSplit) -> EncodedSplit:
    """Two labels, and words of a small vocabulary."""
    return replace(split, labels=split.labels % 2, tokens=replace(split.tokens, values=split.tokens.values % 50))


def test_memory_holds_one_pool_of_shards():
    loads: list[int] = []
    split = small_split(10, [20] * 50, loads)
    most = 0
    for count, (pool, _) in enumerate(split.sampler(5), start=1):
        most = max(most, len(pool))
        done = 5 * count
        assert len(loads) * 20 <= done + 2 * POOL_SHARDS * 20, "a shard is read when its pool begins"
    assert sorted(loads) == list(range(50)), "each is read once an epoch"
    assert most <= POOL_SHARDS * 20 + 10 + 2 * 5
