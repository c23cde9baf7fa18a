import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from kd.measure.inference import all_logits, evaluating, outputs_by_row, torch_threads


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=20, num_labels=3, **sizes)).train()


def batch(rows: list[int]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([[row + 1, row + 2] for row in rows])
    return {"index": torch.tensor(rows), "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_logits_lie_at_their_rows_whatever_the_order(model):
    """Without dropout, although the model is in training mode."""
    expected = all_logits(model, [batch([0, 1]), batch([2, 3])], 4)
    found = all_logits(model, [batch([3]), batch([1, 0]), batch([2])], 5)
    np.testing.assert_allclose(found[:4], expected, atol=1e-6)
    assert np.isnan(found[4]).all() and found.dtype == np.float32 and model.training


def test_rows_come_in_the_order_of_the_batches(model):
    indices = [index.tolist() for index, _, features in outputs_by_row(model, [batch([2, 0]), batch([1])])]
    assert indices == [[2, 0], [1]]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_after_an_error(model, training):
    model.train(training)
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model.training
        _ = 1 / 0
    assert model.training == training


def test_threads_are_set_within_the_block_alone():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
