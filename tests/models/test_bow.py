"""The bags of words against their formulas."""

import pytest
import torch

from kd.models.bow import drop_words
from tests.models.conftest import IDS, make


def test_mlp_without_hidden_layers_is_one_linear_map_of_the_mean():
    student = make("mlp0")
    assert {name for name, _ in student.named_parameters()} == {
        "embedding.weight",
        "head.weight",
        "head.bias",
    }
    table, head = student.embedding.weight, student.head
    means = torch.stack([table[[5, 6, 7, 8, 9, 10]].mean(0), table[[11, 12]].mean(0), table[13], table[0]])
    torch.testing.assert_close(student(IDS).logits, means @ head.weight.T + head.bias)


def test_word_dropout_takes_its_share_and_never_the_whole_text():
    torch.manual_seed(0)
    mask = torch.ones(2000, 20, dtype=torch.bool)
    mask[:, 10:] = False
    kept = drop_words(mask, 0.3)
    assert not (kept & ~mask).any()
    assert kept[:, :10].float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert drop_words(torch.ones(500, 1, dtype=torch.bool), 0.9).all()
    dan = make("dan", word_dropout=0.5, dropout=0.0)
    assert torch.equal(dan(IDS).logits, dan(IDS).logits)
    dan.train()
    assert not torch.equal(dan(IDS).logits, dan(IDS).logits)
