"""The student's tokenizers."""

import json

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import BertProcessing, Sequence
from transformers import AutoTokenizer, BertTokenizer, MPNetTokenizer, PreTrainedTokenizerFast

from kd.data.tokenizers import PretrainedTokenizer, TeacherTokenizer, WordTokenizer, tokenizer_fingerprint
from kd.errors import KDError

SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz!,.")
PIECES = [
    "film",
    "films",
    "fi",
    "##lm",
    "the",
    "fine",
    "##s",
    "dull",
    "un",
    "##seen",
    "##ly",
    "very",
    "bad",
    "##ne",
]
TEXTS = [
    "The film, the films!",
    "fine films",
    "unseenly fine",
    "dull dull dull çedille 電影",
    "",
    "  ",
    "x" * 120,
]


def word_piece_tokenizer() -> BertTokenizer:
    tokens = [
        *SPECIAL,
        *LETTERS,
        *PIECES,
        *(f"##{letter}" for letter in LETTERS if f"##{letter}" not in PIECES),
    ]
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, model_max_length=64)


def with_plain(tokenizer, without: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer without the mark that a token is special."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["added_tokens"] = [token for token in backend["added_tokens"] if token["content"] != without]
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(backend)), **names)


def pieces(tokenizer, texts):
    return [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(list(texts))["input_ids"]]


def test_the_teachers_tokenizer_is_copied_and_pads_on_the_right():
    teacher = word_piece_tokenizer()
    teacher.padding_side = "left"
    tokenizer = TeacherTokenizer()(TEXTS, teacher)
    assert tokenizer.padding_side == "right" and teacher.padding_side == "left"
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(teacher)
    tokenizer.add_tokens(["new"])
    assert len(tokenizer) == len(teacher) + 1


def test_a_restricted_vocabulary_tokenises_the_training_texts_as_before():
    teacher = word_piece_tokenizer()
    restricted = TeacherTokenizer(restrict=True)(iter(TEXTS), teacher)
    assert pieces(restricted, TEXTS) == pieces(teacher, TEXTS)
    vocabulary = restricted.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(restricted)))
    assert restricted.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {*LETTERS, *(f"##{letter}" for letter in LETTERS)} <= set(vocabulary)
    assert {"very", "bad", "##ne", "fi", "##lm", "[unused0]"}.isdisjoint(vocabulary)
    assert pieces(restricted, ["very bad"]) == [["[CLS]", "v", "##e", "##r", "##y", "b", "##a", "##d", "[SEP]"]]
    assert pieces(restricted, ["[MASK] film"]) == [["[CLS]", "[MASK]", "film", "[SEP]"]]


def test_restricting_ignores_the_teachers_truncation_and_does_not_change_it():
    teacher = word_piece_tokenizer()
    teacher(["film film film"], truncation=True, max_length=3, padding="max_length")
    before = teacher.backend_tokenizer.to_str()
    restricted = TeacherTokenizer(restrict=True)(["the the the fine"], teacher)
    assert "fine" in restricted.get_vocab()
    assert teacher.backend_tokenizer.to_str() == before


def test_rare_pieces_go_first():
    teacher = word_piece_tokenizer()
    frequent = TeacherTokenizer(restrict=True, min_count=2)(TEXTS, teacher).get_vocab()
    assert {"the", "films", "fine", "dull"} <= set(frequent) and "film" not in frequent
    whole = len(TeacherTokenizer(restrict=True)(TEXTS, teacher))
    small = TeacherTokenizer(restrict=True, max_size=whole - 6)(TEXTS, teacher)
    assert len(small) == whole - 6
    assert "dull" in small.get_vocab() and "film" not in small.get_vocab()
    with pytest.raises(KDError, match=r"tokenizer\.max_size must leave room.*got 20; set tokenizer\.max_size=63"):
        TeacherTokenizer(restrict=True, max_size=20)(TEXTS, teacher)


def test_other_post_processors_are_renumbered_too():
    teacher = word_piece_tokenizer()
    teacher.backend_tokenizer.post_processor = BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    restricted = TeacherTokenizer(restrict=True)(TEXTS, teacher)
    assert pieces(restricted, TEXTS) == pieces(teacher, TEXTS)
    teacher.backend_tokenizer.post_processor = None


@pytest.mark.parametrize("sequence", [False, True])
def test_the_vocabulary_of_an_mpnet_can_be_restricted(sequence):
    """It has word pieces as BERT, and the special tokens of RoBERTa."""
    tokens = ["<s>", "<pad>", "</s>", "[UNK]", *LETTERS, *PIECES, *(f"##{letter}" for letter in LETTERS), "<mask>"]
    teacher = MPNetTokenizer(vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))})
    if sequence:
        teacher.backend_tokenizer.post_processor = Sequence([teacher.backend_tokenizer.post_processor])
    texts = TEXTS[:2]
    restricted = TeacherTokenizer(restrict=True)(texts, teacher)
    assert pieces(restricted, texts) == pieces(teacher, texts)
    assert len(restricted) < len(teacher) and restricted.pad_token == "<pad>"
    assert pieces(restricted, ["film"]) == [["<s>", "film", "</s>"]]


def test_a_special_token_that_is_no_added_token_is_kept():
    teacher = with_plain(word_piece_tokenizer(), without="[SEP]")
    restricted = TeacherTokenizer(restrict=True)(TEXTS, teacher)
    assert pieces(restricted, TEXTS) == pieces(teacher, TEXTS)


def test_restricting_needs_a_teacher():
    with pytest.raises(KDError, match="need a teacher"):
        TeacherTokenizer(restrict=True)(TEXTS, None)


def test_words_are_learnt_from_the_texts():
    tokenizer = WordTokenizer(min_count=1)(iter(TEXTS))
    special = ["[PAD]", "[UNK]", "[CLS]", "[MASK]"]
    assert tokenizer.convert_ids_to_tokens(range(4)) == special
    assert pieces(tokenizer, ["THE film, unheard", "電影", "", "[MASK] film"]) == [
        ["[CLS]", "the", "film", ",", "[UNK]"],
        ["[CLS]", "電", "影"],
        ["[CLS]"],
        ["[CLS]", "[MASK]", "film"],
    ]
    assert set(tokenizer("film")) == {"input_ids", "attention_mask"}
    frequent = WordTokenizer(min_count=2)(TEXTS)
    assert set(frequent.get_vocab()) == {*special, "dull", "films", "fine", "the"}
    assert set(WordTokenizer(max_size=5)(TEXTS).get_vocab()) == {*special, "dull"}
    assert "The" in WordTokenizer(min_count=1, lowercase=False)(TEXTS).get_vocab()


@pytest.mark.parametrize("way", [TeacherTokenizer(), TeacherTokenizer(restrict=True), WordTokenizer(min_count=1)])
def test_tokenizers_reload_and_keep_their_fingerprint(way, tmp_path):
    tokenizer = way(TEXTS, word_piece_tokenizer())
    fingerprint = tokenizer_fingerprint(tokenizer)
    tokenizer(TEXTS, truncation=True, max_length=4, padding="max_length")
    assert tokenizer_fingerprint(tokenizer) == fingerprint
    tokenizer.save_pretrained(tmp_path)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), PretrainedTokenizer(str(tmp_path))([])):
        assert tokenizer_fingerprint(loaded) == fingerprint
        assert pieces(loaded, TEXTS) == pieces(tokenizer, TEXTS)
        assert (loaded.pad_token_id, loaded.padding_side) == (0, "right")


def test_fingerprints_tell_tokenizers_apart():
    teacher = word_piece_tokenizer()
    ways = [TeacherTokenizer(), TeacherTokenizer(restrict=True), WordTokenizer(), WordTokenizer(min_count=1)]
    fingerprints = {tokenizer_fingerprint(way(TEXTS, teacher)) for way in ways}
    assert len(fingerprints) == 4
    again = TeacherTokenizer(restrict=True)(reversed(TEXTS), teacher)
    assert tokenizer_fingerprint(again) in fingerprints


def test_what_is_out_of_range_or_missing_is_refused(tmp_path):
    with pytest.raises(KDError, match="min_count must be a whole number of at least 1, found 0"):
        WordTokenizer(min_count=0)
    with pytest.raises(KDError, match="max_size must be a whole number of at least 5, found 4"):
        WordTokenizer(max_size=4)
    with pytest.raises(KDError, match="max_size must be a whole number of at least 1 or null, found 0"):
        TeacherTokenizer(restrict=True, max_size=0)
    with pytest.raises(KDError, match="no tokenizer in"):
        PretrainedTokenizer(str(tmp_path / "nothing"))([])


def test_a_vocabulary_without_a_word_is_refused():
    with pytest.raises(
        KDError, match=r"tokenizer.min_count=99: expected words that occur so often .* every word would"
    ):
        WordTokenizer(min_count=99)(TEXTS)
