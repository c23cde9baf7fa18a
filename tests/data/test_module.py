"""The DataModule: batches, their order, and what they leave unchanged."""

from itertools import chain

import numpy as np
import pytest
import torch

from kd.data.batching import EncodedSplit, Ragged
from kd.data.module import TextDataModule
from kd.data.tokenizers import WordTokenizer
from kd.errors import KDError


def split(rows: int) -> EncodedSplit:
    lengths = np.random.default_rng(0).integers(1, 9, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return EncodedSplit(Ragged(np.ones(offsets[-1], np.int32), offsets), np.zeros(rows, np.int64), 0)


def order(loader) -> list[list[int]]:
    return [batch["index"].tolist() for batch in loader]


def test_loaders_give_each_row_once():
    data = TextDataModule(split(50), split(30), batch_size=8, evaluation_batch_size=20)
    for loader, rows, sizes in ((data.train_dataloader(), 50, [2, *6 * [8]]), (data.val_dataloader(), 30, [10, 20])):
        batches = order(loader)
        assert sorted(chain.from_iterable(batches)) == list(range(rows)) and sorted(map(len, batches)) == sizes
    assert 0 < data.padding_share() < 0.5


def test_the_order_of_training_depends_on_the_seed_and_draws_no_random_number():
    before = torch.random.get_rng_state()
    first, again, other = (order(TextDataModule(split(50), split(9), 8, seed).train_dataloader()) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_more_devices_than_rows_are_refused():
    data = TextDataModule(split(50), split(3), 8)
    data.require_rows(3)
    with pytest.raises(KDError, match="expected a validation row for each of the 4 devices, found 3 rows"):
        data.require_rows(4)


def test_texts_that_a_tokenizer_does_not_know_give_one_warning(caplog):
    known = WordTokenizer(min_count=1)(["a fine film"])
    data = TextDataModule(split(9), split(9), 8, texts=["un beau film"] * 9, tokenizers={"the student's": known})
    data.setup("fit")
    assert caplog.text.count("67 % of the pieces of the training texts are unknown to the student's tokenizer") == 1
    TextDataModule(split(9), split(9), 8).setup("fit")
    assert len(caplog.records) == 1
