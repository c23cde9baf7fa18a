"""Batches of rows of similar length."""

import numpy as np
import pytest
import torch

from kd.data.batching import EncodedSplit, LengthBucketSampler, Ragged, padding_share


def ragged(lengths) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets)


@pytest.fixture
def lengths():
    # Like review sentences: mean 27, from 3 to 64.
    return np.clip(np.random.default_rng(0).gamma(5, 5.4, size=6_000).astype(int), 3, 64)


def test_padded_rows_hold_their_tokens_and_a_mask():
    rows = ragged([3, 1, 0])
    ids, mask = rows.padded([1, 0, 2], padding=9)
    assert ids.tolist() == [[4, 9, 9], [1, 2, 3], [9, 9, 9]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    ids, mask = rows.padded([2], padding=9)
    assert ids.tolist() == [[9]] and mask.tolist() == [[0]], "a batch of empty texts still has a column"


@pytest.mark.parametrize("rows", [1, 7, 63, 64, 65, 127, 128, 129, 1_000, 6_399, 6_401])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_once_and_as_many_batches_on_every_rank(lengths, rows, world_size, shuffle):
    lengths = np.resize(lengths, rows)
    ranks = [LengthBucketSampler(lengths, 32, shuffle, rank=rank, world_size=world_size) for rank in range(world_size)]
    batches = [list(sampler) for sampler in ranks]
    assert sorted(row for rank in batches for batch in rank for row in batch) == list(range(rows))
    assert {len(rank) for rank in batches} == {len(ranks[0])}
    if rows >= world_size:
        assert all(batch for rank in batches for batch in rank), "no rank may get an empty batch"


def test_order_depends_on_seed_and_epoch_alone(lengths):
    def order(seed, epoch):
        sampler = LengthBucketSampler(lengths, 64, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_ranks_together_see_the_batches_of_one_process(lengths):
    """Two ranks of 32 rows train on the same global batches as one process with 64."""
    one = list(LengthBucketSampler(lengths, 64, shuffle=True))
    two = [list(LengthBucketSampler(lengths, 32, shuffle=True, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*two, strict=True)] == one


def test_padding_is_under_eight_percent(lengths):
    batches = list(LengthBucketSampler(lengths, 64, shuffle=True))
    assert padding_share(lengths, batches) < 0.08
    unsorted = np.array_split(np.arange(len(lengths)), len(batches))
    assert padding_share(lengths, unsorted) > 0.3, "random batches would pad much more"


def test_padding_share_counts_padding():
    assert padding_share(np.array([1, 3]), [np.array([0, 1])]) == pytest.approx(2 / 6)


def test_batches_carry_columns_by_row():
    split = EncodedSplit(
        ragged([2, 1, 3]),
        np.array([1, 0, -100]),
        0,
        columns={"teacher_logits": np.eye(3, 2, dtype=np.float32)},
    )
    batch = split[[2, 0]]
    assert batch["index"].tolist() == [2, 0] and batch["labels"].tolist() == [-100, 1]
    assert batch["teacher_logits"].tolist() == [[0, 0], [1, 0]]
    assert batch["input_ids"].dtype == torch.int64


def test_columns_of_another_length_are_refused():
    with pytest.raises(ValueError, match="2 rows, the split has 3"):
        EncodedSplit(ragged([2, 1, 3]), np.zeros(3, int), 0, columns={"teacher_logits": np.zeros((2, 2))})
