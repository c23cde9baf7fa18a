"""The word table from the teacher's sentence vectors of single words."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kd.data.tokenizers import WordTokenizer
from kd.errors import KDError, OptionError
from kd.models.encoded import EncodedEmbeddings, Encoder, texts_of, zipf_weights
from tests.models.test_embeddings import word_piece_tokenizer

WORDS = ["the film is a fine fine film", "a dull film"]


def vectors(texts):
    """A vector of 6 numbers that depends on the text alone."""
    rows = [torch.randn(6, generator=torch.Generator().manual_seed(sum(map(ord, text)))) + 3 for text in texts]
    return torch.stack(rows)


ENCODER = Encoder(6, vectors)


def test_each_word_gets_its_reduced_and_weighted_vector():
    words = WordTokenizer(min_count=1)(WORDS)
    texts = texts_of(words)
    plain = EncodedEmbeddings(weighting="none", std=None).encoded(6, words, ENCODER)
    assert plain.ids == sorted(texts) and set(texts.values()) == {"the", "film", "is", "a", "fine", "dull"}
    centred = vectors(texts.values()) - vectors(texts.values()).mean(dim=0)
    torch.testing.assert_close(plain.values @ plain.values.T, centred @ centred.T, atol=1e-4, rtol=1e-4)
    weighted = EncodedEmbeddings(sif=0.01, std=None).encoded(6, words, ENCODER)
    torch.testing.assert_close(weighted.values, plain.values * zipf_weights(6, 0.01).unsqueeze(1))
    assert EncodedEmbeddings(std=0.1).encoded(4, words, ENCODER).values.std().item() == pytest.approx(0.1)


def test_pieces_are_read_without_their_prefix_and_equal_texts_start_alike():
    texts = texts_of(word_piece_tokenizer())
    assert list(texts.values()).count("d") == 1 and "ly" in texts.values() and not any("#" in t for t in texts.values())
    pieces = word_piece_tokenizer()
    pieces.add_tokens(["ly"])
    known = EncodedEmbeddings(weighting="none").encoded(3, pieces, ENCODER)
    by_id = dict(zip(known.ids, known.values, strict=True))
    assert torch.equal(by_id[len(pieces) - 1], by_id[pieces.get_vocab()["##ly"]])
    assert not set(pieces.all_special_ids) & set(known.ids)


def test_byte_pairs_are_read_as_text():
    backend = Tokenizer(models.BPE({"a": 0, "Ġfilm": 1, "film": 2, "Ġ": 3}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    assert texts_of(PreTrainedTokenizerFast(tokenizer_object=backend)) == {0: "a", 1: "film", 2: "film"}


def test_frequent_words_weigh_less():
    weights = zipf_weights(1000, 1e-4)
    assert (weights.diff() > 0).all() and 0 < weights[0] < 0.01 < weights[-1] < 1


def test_what_cannot_start_is_refused_before_the_teacher_is_run():
    words = WordTokenizer(min_count=1)(WORDS)
    with pytest.raises(KDError, match="embeddings=encoded needs a teacher"):
        EncodedEmbeddings().require(3, words, None)
    with pytest.raises(KDError, match=r"at most 4 numbers a word \(the teacher's width is 4.*of width 5; set"):
        EncodedEmbeddings().require(5, words, 4)
    with pytest.raises(KDError, match=r"at most 6 numbers a word .* the vocabulary has 6 tokens"):
        EncodedEmbeddings().require(7, words, 384)
    with pytest.raises(OptionError, match="pooling must be mean or cls, found 'max'"):
        EncodedEmbeddings(pooling="max")
