import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from kd.measure.cost import latencies, latency, parameter_counts


@pytest.fixture
def model():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=2000, max_position_embeddings=64, **sizes))


def test_parameters_by_hand(model):
    words_positions_types = 8 * (2000 + 64 + 2)
    found = parameter_counts(model)
    assert found["total"] == found["trainable"] == sum(p.numel() for p in model.parameters())
    assert found["total"] - found["without_embeddings"] == words_positions_types
    model.bert.embeddings.requires_grad_(False)
    normalisation = 2 * 8
    assert found["total"] - parameter_counts(model)["trainable"] == words_positions_types + normalisation


def test_models_take_turns_and_get_their_mode_back(model, teacher_folder):
    tokenizer, turns = AutoTokenizer.from_pretrained(teacher_folder), []
    other = BertForSequenceClassification(model.config).eval()
    for name, one in (("first", model.train()), ("second", other)):
        one.register_forward_hook(lambda *_, name=name: turns.append(name))
    found = latencies([model, other], tokenizer, ["a film", "the plot is dull"], 16, warm_up=1, timed=4)
    assert turns == ["first", "second"] * 5 and model.training and not other.training
    assert all(0 < one["p50_ms"] <= one["p95_ms"] and one["threads"] == torch.get_num_threads() for one in found)
    assert set(latency(model, tokenizer, ["a"], 16, warm_up=1, timed=2)) == {"p50_ms", "p95_ms", "threads"}
