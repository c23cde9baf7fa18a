"""The mean of hashed n-grams; what all students have in common is in test_base.py."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from kd.errors import KDError
from kd.models import HashedNGrams, HashedNGramsConfig
from kd.models.ngram_keys import FACTOR, PRIME, in_buckets, word_keys
from kd.models.pretrained import new_student
from kd.options.declared import options_of
from tests.models.conftest import IDS, MASK, SIZES

CONF = Path(__file__).parents[2] / "conf" / "student" / "ngrams.yaml"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", *(chr(97 + n % 26) * (1 + n % 5) for n in range(37))]


def make(**options) -> HashedNGrams:
    torch.manual_seed(0)
    student = new_student(HashedNGramsConfig(**SIZES, hidden_size=10, **{"buckets": 60} | options))
    student.spell(TOKENS, {0, 1, 2})
    return student.eval()


def test_the_first_state_is_the_mean_vector_of_the_ngrams():
    student = make(ngrams=2)
    mean = student(IDS, MASK, output_hidden_states=True).hidden_states[0]
    for row, length in enumerate(MASK.sum(dim=1).tolist()):
        words = IDS[row : row + 1, :length]
        keys = word_keys(words, torch.ones_like(words, dtype=torch.bool), 2, FACTOR, PRIME)[0] if length else IDS[:0, 0]
        rows = in_buckets(keys[keys >= 0], 60)
        assert len(rows) == max(0, 2 * length - 1)
        expected = student.embedding.weight[rows].mean(dim=0) if length else torch.zeros(12)
        torch.testing.assert_close(mean[row, 0], expected)


def test_the_characters_of_a_word_count_as_one_ngram():
    student = make(ngrams=1, characters=(1, 2))
    assert student.config.spelled > 1
    rows, weights = student._rows(IDS, MASK.bool())
    torch.testing.assert_close((weights * (rows > 0)).sum(dim=1), 2.0 * MASK.sum(dim=1))
    longer = make(ngrams=1)
    assert not torch.allclose(longer(IDS, MASK).logits, student(IDS, MASK).logits)


@pytest.mark.parametrize("sparse", [True, False])
def test_sparse_gradients_equal_dense_ones_and_name_the_rows_read(sparse):
    student = make(sparse=sparse, characters=(2, 3)).train()
    student.config.ngram_dropout = student.dropout.p = 0.0
    student(IDS, MASK, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    grad = student.embedding.weight.grad
    assert grad.is_sparse is sparse
    other = make(sparse=not sparse, characters=(2, 3)).train()
    other.config.ngram_dropout = other.dropout.p = 0.0
    other(IDS, MASK, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    whole = [each.to_dense() if each.is_sparse else each for each in (grad, other.embedding.weight.grad)]
    torch.testing.assert_close(*whole)
    assert whole[0][0].abs().sum() == 0


def test_dropout_leaves_ngrams_out_in_training_alone():
    student = make(ngram_dropout=0.9)
    student.dropout.p = 0.0
    first = student.train()(IDS, MASK).logits
    assert first.isfinite().all() and not torch.equal(first, student(IDS, MASK).logits)
    student.eval()
    assert torch.equal(student(IDS, MASK).logits, student(IDS, MASK).logits)


@pytest.mark.parametrize("characters", [0, (2, 3)])
def test_exports_with_dynamic_batch_and_length(characters):
    student = make(characters=characters)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.student = student

        def forward(self, input_ids, attention_mask):
            return self.student(input_ids, attention_mask).logits

    shape = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1)}
    shapes = {"input_ids": shape, "attention_mask": shape}
    program = torch.export.export(Logits().eval(), (IDS[:2], MASK[:2]), dynamic_shapes=shapes)
    assert not any("embedding_bag" in str(node.target) for node in program.graph.nodes)
    for rows in (IDS[:1, :1], IDS, IDS[:3, :4]):
        mask = (rows != 0).long()
        torch.testing.assert_close(program.module()(rows, mask), student(rows, mask).logits)


def test_vectors_are_refused():
    with pytest.raises(KDError, match="finds n-grams in input_ids, found inputs_embeds"):
        make()(inputs_embeds=torch.zeros(1, 2, 12))


def test_every_option_is_declared_with_a_meaning_and_the_default_of_its_yaml():
    node = dict(OmegaConf.load(CONF).student)
    assert node.pop("_target_") == "kd.models.hashed.HashedNGramsConfig"
    options = options_of(HashedNGramsConfig)
    assert {"vocab_size", "pad_token_id", "spelled", "initializer_range", *node} == set(options)
    assert all(option.meaning for option in options.values())
    assert (node.pop("embedding_size"), {key: getattr(HashedNGramsConfig(), key) for key in node}) == (64, node)
    assert new_student(HashedNGramsConfig(buckets=3000, embedding_size=32)).embedding.weight.numel() == 96_032
