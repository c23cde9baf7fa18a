"""A streamed transfer set: its shards are tokenised and labelled once, and follow the labelled rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from kd.contract import IGNORED_LABEL
from kd.data.batching import EncodedSplit, labels_of, tokenize
from kd.teacher import transfer_set
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.transfer_set import ShardTexts, Transfer
from tests.conftest import make_reviews

TEXTS = [text for text, _ in make_reviews(25, seed=7)]


@pytest.fixture
def transfer(splits, tmp_path) -> Transfer:
    """Three shards; a text of the training split and one of the test split are left out."""
    path = tmp_path / "rows.jsonl"
    rows = [*TEXTS, splits.train["text"][0], splits.test["text"][0]]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    data = {"unlabelled": str(path), "text": "text", "encoding": "utf-8", "deduplicate": True, "shard_rows": 10}
    return Transfer.of(OmegaConf.create({"data": {**data, "max_length": 12}, "outputs": str(tmp_path)}), splits)


def test_texts_of_other_splits_are_left_out(transfer):
    assert sorted(transfer.sample()) == sorted(TEXTS) and len(transfer.store) == 3


def test_a_vocabulary_reads_the_beginning_of_every_shard(transfer, monkeypatch):
    monkeypatch.setattr(transfer_set, "VOCABULARY_ROWS", 7)
    beginnings = [text for number in range(3) for text in transfer.store.texts(number)[:3]]
    assert list(transfer.sample()) == beginnings


def test_a_shard_gives_its_tokens_from_the_cache(transfer, ready, monkeypatch):
    monkeypatch.setattr(transfer_set, "ROWS_AT_ONCE", 4)
    texts = ShardTexts(transfer.store, 1)
    found = texts.tokens(ready.tokenizer, 12)
    expected = tokenize(ready.tokenizer, list(texts), 12)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    assert found.values.dtype == np.uint16 and len(texts) == 10 and texts[:2] == transfer.store.texts(1)[:2]
    assert texts.key(ready.tokenizer, 12) != texts.key(ready.tokenizer, 13)
    monkeypatch.setattr(transfer_set, "tokenize", lambda *arguments: pytest.fail("the cache was not used"))
    np.testing.assert_array_equal(ShardTexts(transfer.store, 1).tokens(ready.tokenizer, 12).values, expected.values)


def test_shards_are_labelled_once_and_follow_the_labelled_rows(transfer, ready, splits, tmp_path, caplog):
    teacher = TeacherOutputs(ready, tmp_path, cache=True)
    caplog.set_level("INFO", logger="kd")
    transfer.label(ready.tokenizer, teacher)
    took = teacher.seconds["train"]
    assert caplog.text.count("labelling") == 3 and took > 0
    transfer.label(ready.tokenizer, teacher)
    assert caplog.text.count("labelling") == 3 and teacher.seconds["train"] == pytest.approx(2 * took)

    logits = {"teacher_logits": ready.live_logits(splits.train["text"])}
    resident = EncodedSplit(ready.tokens(splits.train["text"]), labels_of(splits.train), 0, columns=logits)
    streamed = transfer.split(resident, ready.tokenizer, teacher)
    assert len(streamed) == 60 + 25
    shard = streamed.load(2)
    assert set(shard.labels) == {IGNORED_LABEL} and len(shard) == 5
    expected = ready.live_logits(transfer.store.texts(2))
    np.testing.assert_allclose(shard.columns["teacher_logits"], expected, atol=1e-6)
    assert Path(transfer.store.place).parent == tmp_path / "transfer"
