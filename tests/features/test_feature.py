"""Features: their names, widths and sizes, and their values against the model's own output."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Qwen3Config

from kd.errors import KDError
from kd.features import attention
from kd.features.feature import Feature, bytes_a_row, depth_of, inner, pooled, read, split_heads
from kd.models import DANConfig

SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
INPUTS = {
    "input_ids": torch.tensor([[3, 4, 5, 6], [8, 9, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    found = BertForSequenceClassification(BertConfig(vocab_size=20, **SIZES)).eval()
    attention.prepare(found)
    return found


@pytest.mark.parametrize(
    ("feature", "column"),
    [
        (Feature("hidden_states", 0), "hidden_states-0-tokens"),
        (Feature("hidden_states", 2, "mean"), "hidden_states-2-mean"),
        (Feature("queries", 1, None, "first"), "first.queries-1-tokens"),
    ],
)
def test_columns_have_one_name_for_each_feature(feature, column):
    assert feature.column == column


@pytest.mark.parametrize(("pooling", "first"), [("mean", [2.0, 4.0]), ("cls", [1.0, 3.0])])
def test_pooling_reads_no_padding_and_gives_zero_without_tokens(pooling, first):
    states = torch.tensor([[[1.0, 3.0], [3.0, 5.0], [torch.nan, torch.inf]], [[7.0, 7.0]] * 3])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert pooled(states, mask, pooling).tolist() == [first, [0.0, 0.0]]


def test_bytes_of_a_row():
    config, states, keys = BertConfig(**SIZES), Feature("hidden_states", 1), Feature("keys", 1)
    assert bytes_a_row(config, states, tokens=5.5) == bytes_a_row(config, keys, tokens=5.5) == 2 * 8 * 5.5
    wide = Qwen3Config(**SIZES, head_dim=6)
    assert bytes_a_row(wide, keys, tokens=1) == 2 * 12, "heads may be wider than the hidden states"
    assert bytes_a_row(config, Feature("hidden_states", 1, "mean"), tokens=5.5) == 2 * 8


def test_heads_that_stand_side_by_side_are_separated():
    first, second = torch.randn(2, 3, 5, 4)
    assert torch.equal(split_heads(torch.cat([first, second], -1), 2), torch.stack([first, second], 1))


@torch.no_grad()
def test_read_returns_the_models_own_outputs(model):
    expected = model(**INPUTS, output_hidden_states=True)
    tokens, mean, queries = Feature("hidden_states", 1), Feature("hidden_states", 2, "mean"), Feature("queries", 2)
    logits, found = read(model, INPUTS, [tokens, mean, queries])
    assert torch.equal(logits, expected.logits) and set(found) == {tokens, mean, queries}
    assert torch.equal(found[tokens], expected.hidden_states[1])
    torch.testing.assert_close(found[mean][1], expected.hidden_states[2][1, :2].mean(0))
    torch.testing.assert_close(found[queries], model.bert.encoder.layer[1].attention.self.query(found[tokens]))
    assert read(model, INPUTS, [])[1] == {}


def test_inner_computes_only_what_is_named(model):
    output, triples = inner(model, INPUTS, {"hidden_states"})
    assert len(output.hidden_states) == 3 and triples == []
    output, triples = inner(model, INPUTS, {"keys"})
    assert output.hidden_states is None and len(triples) == 2


def test_depth_is_the_number_of_transformer_layers():
    assert depth_of(BertConfig(**SIZES)) == 2
    with pytest.raises(KDError, match="found 'kd-dan' without; use a transformer as the teacher"):
        depth_of(DANConfig())
