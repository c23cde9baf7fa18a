"""Tokenising word by word gives the same token ids as the tokenizer, for any text."""

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import BertProcessing, TemplateProcessing
from transformers import PreTrainedTokenizerFast

from kd.data import batching, words
from kd.data.batching import tokenize
from kd.data.tokenizers import TeacherTokenizer, WordTokenizer
from kd.data.words import Words
from kd.data.wordwise import wordwise_tokenizer

ALPHABET = [
    *"abcxyzABC019.,!?'-_[]#$",
    *(
        "é",
        "e\u0301",
        "\u0301",
        "ß",
        "İ",
        "ı",
        "Σ",
        "ς",
        "ﬁ",
        "電",
        "影",
        "한",
        "क्ष",
        "🙂",
        "👩‍👩‍👧",
        "\ufffd",
        "\u200b",
    ),
    *("\t", "\n", "\r", "\x0b", "\x0c", "\x1f", "\x85", "\xa0", "\u2028", "\u3000", " ", " ", " ", " "),
    *("film", "films", "wonderful", "[MASK]", "[SEP]", "[CLS]", "##s", "movie", "unbelievably"),
]


def texts(rows: int = 3000) -> list[str]:
    generator = random.Random(0)
    return ["".join(generator.choices(ALPHABET, k=generator.randint(0, 40))) for _ in range(rows)]


def word_pieces(lowercase: bool = True, single: str = "[CLS] $A [SEP]") -> PreTrainedTokenizerFast:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper() or not lowercase]
    pieces = [*specials, *letters, *(f"##{letter}" for letter in letters), "é", "影", "film", "##s", "wonder", "##ful"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = TemplateProcessing(single, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), specials, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def with_bert_ends() -> PreTrainedTokenizerFast:
    tokenizer = word_pieces()
    tokenizer.backend_tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


TOKENIZERS = {
    "uncased": word_pieces,
    "cased": lambda: word_pieces(lowercase=False),
    "one_end": lambda: word_pieces(single="[CLS] $A"),
    "bert_ends": with_bert_ends,
    "restricted": lambda: TeacherTokenizer(restrict=True)(texts(50), word_pieces()),
    "words": lambda: WordTokenizer()(texts(500)),
}


@pytest.mark.parametrize("max_length", [2, 3, 9, 64])
@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_the_same_ids_as_the_tokenizer_gives(make, max_length, monkeypatch):
    monkeypatch.setattr(batching, "WORDWISE_CHUNK", 700)
    monkeypatch.setattr(words, "WORDS_KEPT", 900)
    monkeypatch.setattr(words, "LONGEST_KEPT", 12)
    tokenizer, rows = make(), texts()
    assert wordwise_tokenizer(tokenizer) is not None
    found = tokenize(tokenizer, rows, max_length)
    expected = tokenizer(rows, truncation=True, max_length=max_length)["input_ids"]
    assert [found[row].tolist() for row in range(len(rows))] == expected
    assert found.values.dtype == np.int32
    few = Words.of(wordwise_tokenizer(tokenizer).words.backend)
    assert [few([row], max_length)[0] for row in rows[:500]] == expected[:500] and max(map(len, few.known)) <= 12


def test_two_threads_share_the_words_that_are_kept(monkeypatch):
    monkeypatch.setattr(words, "WORDS_KEPT", 3)
    shared = Words.of(wordwise_tokenizer(word_pieces()).words.backend)
    rows = [
        " ".join(random.Random(row).choices(["film", "a", "b", "c", "wonderful", "films"], k=6)) for row in range(50)
    ]
    expected = [shared([row], 64) for row in rows]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(lambda _: [shared([row], 64) for row in rows * 20], range(4)))
    finally:
        sys.setswitchinterval(before)
    assert found == [expected * 20] * 4


def test_nothing_gives_nothing():
    found = tokenize(word_pieces(), [], 8)
    assert len(found) == 0 and len(found.values) == 0
    assert [tokenize(word_pieces(), ["", " "], 8)[row].tolist() for row in range(2)] == [[2, 3], [2, 3]]


def test_words_that_may_depend_on_their_neighbours_are_left_to_the_tokenizer():
    def of(change) -> PreTrainedTokenizerFast:
        tokenizer = word_pieces()
        change(tokenizer)
        return tokenizer

    def pre_tokenizer(tokenizer):
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()

    def normalizer(tokenizer):
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" ", "_")

    def two_words(tokenizer):
        tokenizer.add_tokens(["film film"])

    def from_the_left(tokenizer):
        tokenizer.truncation_side = "left"

    for change in (pre_tokenizer, normalizer, two_words, from_the_left):
        tokenizer = of(change)
        assert wordwise_tokenizer(tokenizer) is None
        rows = [*texts(100), "a film film a", "film film"]
        expected = tokenizer(rows, truncation=True, max_length=9)["input_ids"]
        found = tokenize(tokenizer, rows, 9)
        assert [found[row].tolist() for row in range(len(rows))] == expected
