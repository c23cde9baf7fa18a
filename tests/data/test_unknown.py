"""The share of pieces that a tokenizer does not know."""

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from kd.data.tokenizers import WordTokenizer
from kd.data.unknown import HIGH, Unknown, unknown_pieces
from tests.conftest import make_reviews

TEXTS = [text for text, _ in make_reviews(200)]


def test_a_tokenizer_of_these_texts_knows_them():
    found = unknown_pieces(WordTokenizer(min_count=1)(TEXTS), TEXTS)
    assert found == Unknown(0.0) and found.warning("the student's") is None


def test_the_share_counts_pieces_and_the_most_frequent_are_examples():
    tokenizer = WordTokenizer(min_count=1)(["the film is a"])
    found = unknown_pieces(tokenizer, ["the film is großartig", "großartig a the wow", *[""] * 5])
    assert found == Unknown(3 / 8, ("großartig", "wow"))
    assert "38 % of the pieces of the training texts are unknown to the teacher's tokenizer" in found.warning(
        "the teacher's"
    )


@pytest.mark.parametrize("rows", [1, 50, 2001])
def test_a_tokenizer_without_a_vocabulary_knows_nothing(rows):
    """As transformers makes one for a folder without tokenizer files."""
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "[PAD]": 1}, unk_token="[UNK]"))
    empty = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    found = unknown_pieces(empty, (TEXTS * 11)[:rows])
    assert found.share == 1.0 > HIGH and found.examples


def test_a_tokenizer_without_an_unknown_piece_knows_all():
    backend = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    assert unknown_pieces(PreTrainedTokenizerFast(tokenizer_object=backend), ["ab"]) == Unknown(0.0)
