"""A restricted tokenizer gives the pieces of the whole one, for every kind of vocabulary and post-processor."""

import json
import random
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kd.data.restriction import require_known, restricted
from kd.data.tokenizers import TeacherTokenizer, backend_json
from kd.errors import KDError
from kd.models.embeddings import TeacherTable, teacher_rows

DOCS = Path(__file__).parents[2] / "docs"
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
NAMES = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>"}


@cache
def lines() -> list[str]:
    """Some hundred lines of real text: English, tables and code; and a few of other scripts."""
    pages = [line.strip() for page in sorted(DOCS.glob("*.md")) for line in page.read_text().splitlines()]
    other = [
        "酒店的房间很干净,服务也不错。",
        "电影不好看",
        "Ça déçoit, hélas!",
        "очень хороший фильм",
        "naïve ﬁlm ½ ① Ｆｕｌｌ",
    ]
    return [*random.Random(0).sample([page for page in pages if page], 600), *other, "a 🙂 film 🙃🙃", "x" * 120]


def trained(model, trainer, pre_tokenizer=None, normalizer=None, decoder=None) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.train_from_iterator(lines(), trainer)
    return tokenizer


COMMON = {"vocab_size": 900, "special_tokens": SPECIAL, "show_progress": False}
SEVERAL = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])


def byte_level(**options) -> Tokenizer:
    trainer = trainers.BpeTrainer(**COMMON, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    return trained(models.BPE(**options), trainer, pre_tokenizers.ByteLevel(), decoder=decoders.ByteLevel())


def with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer with a piece for each byte, to which unknown characters fall back."""
    content = json.loads(tokenizer.to_str())
    if content["model"]["type"] == "Unigram":
        content["model"]["vocab"] += [[piece, -12.0] for piece in BYTES]
    else:
        content["model"]["vocab"] |= {piece: len(content["model"]["vocab"]) + n for n, piece in enumerate(BYTES)}
    content["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(content))


KINDS = {
    "word pieces": lambda: trained(
        models.WordPiece(unk_token="<unk>"),
        trainers.WordPieceTrainer(**COMMON),
        pre_tokenizers.BertPreTokenizer(),
        normalizers.BertNormalizer(),
    ),
    "words": lambda: trained(
        models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(**COMMON), pre_tokenizers.Whitespace()
    ),
    "BPE of bytes": byte_level,
    "BPE that looks words up first": lambda: byte_level(ignore_merges=True),
    "BPE with ends of words": lambda: trained(
        models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=True),
        trainers.BpeTrainer(**COMMON, end_of_word_suffix="</w>"),
        SEVERAL,
        normalizers.Lowercase(),
    ),
    "BPE with continuations": lambda: trained(
        models.BPE(unk_token="<unk>", continuing_subword_prefix="##"),
        trainers.BpeTrainer(**COMMON, continuing_subword_prefix="##", limit_alphabet=60),
        SEVERAL,
    ),
    "BPE that falls back to bytes": lambda: with_bytes(
        trained(
            models.BPE(unk_token="<unk>", fuse_unk=True),
            trainers.BpeTrainer(**COMMON, limit_alphabet=60),
            pre_tokenizers.Metaspace(),
        )
    ),
    "unigram": lambda: trained(
        models.Unigram(),
        trainers.UnigramTrainer(**COMMON, unk_token="<unk>"),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        normalizers.Sequence([normalizers.NFKC(), normalizers.StripAccents()]),
    ),
    "unigram that falls back to bytes": lambda: with_bytes(
        trained(models.Unigram(), trainers.UnigramTrainer(**COMMON, unk_token="<unk>"), pre_tokenizers.Metaspace())
    ),
}
PAIRS = (("</s>", 2), ("<s>", 1))
TEMPLATE = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
PROCESSORS = {
    "none": None,
    "BERT's": processors.BertProcessing(*PAIRS),
    "RoBERTa's": processors.RobertaProcessing(*PAIRS),
    "a template": TEMPLATE,
    "bytes": processors.ByteLevel(),
    "a sequence": processors.Sequence([processors.ByteLevel(trim_offsets=False), TEMPLATE]),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def whole(kind: str, processor: str = "a template") -> PreTrainedTokenizerFast:
    """Return a teacher's tokenizer, with an added token outside the vocabulary and a mask that takes the space."""
    tokenizer = Tokenizer.from_str(KINDS[kind]().to_str())
    if PROCESSORS[processor] is not None:
        tokenizer.post_processor = PROCESSORS[processor]
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.add_tokens([AddedToken("kd-distil", single_word=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token=AddedToken("<mask>", lstrip=True), **NAMES)


def pieces(tokenizer, texts):
    return [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(list(texts))["input_ids"]] if texts else []


def contents(rows: int, seed: int) -> list[str]:
    """Draw lines, and lines of words in a new order."""
    draw = random.Random(seed)
    words = " ".join(lines()).split(" ")
    shuffled = [" ".join(draw.choices(words, k=8)) for _ in range(rows)]
    return [*draw.sample(lines(), rows), *shuffled, "a <mask> kd-distil, kd-distils", "", "  "]


@every_kind
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_texts_have_the_same_pieces_and_the_ids_are_renumbered(kind, processor):
    teacher, texts = whole(kind, processor), contents(20, seed=1)
    tokenizer = TeacherTokenizer(restrict=True)(iter(texts), teacher)
    assert pieces(tokenizer, texts) == pieces(teacher, texts)
    assert len(tokenizer) < len(teacher)
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert set(tokenizer.get_vocab()) <= set(teacher.get_vocab())
    for name in ("pad", "unk", "bos", "eos", "cls", "mask"):
        assert getattr(tokenizer, f"{name}_token") == getattr(teacher, f"{name}_token")


@every_kind
@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(
        st.one_of(st.sampled_from(lines()), st.text(max_size=30), st.text("aeilmst -.🙂é电", max_size=20)),
        min_size=1,
        max_size=8,
    ),
    seed=st.integers(0, 10**6),
)
def test_any_text_of_kept_pieces_has_them(kind, texts, seed):
    """Also texts that were not seen, as long as the teacher cuts them into pieces that are kept."""
    teacher = whole(kind)
    tokenizer = TeacherTokenizer(restrict=True)(texts, teacher)
    assert pieces(tokenizer, texts) == pieces(teacher, texts)
    kept = set(tokenizer.get_vocab())
    words = " ".join(texts).split(" ")
    draw = random.Random(seed)
    unseen = [" ".join(draw.choices(words, k=4)) for _ in range(5)] + ["".join(draw.choices(words, k=3))]
    unseen = [text for text, cut in zip(unseen, pieces(teacher, unseen), strict=True) if kept.issuperset(cut)]
    assert pieces(tokenizer, unseen) == pieces(teacher, unseen)


@every_kind
def test_a_smaller_vocabulary_loses_the_rare_pieces_and_still_reads_every_text(kind):
    teacher, texts = whole(kind), contents(40, seed=2)
    full = TeacherTokenizer(restrict=True)(texts, teacher)
    frequent = TeacherTokenizer(restrict=True, min_count=5)(texts, teacher)
    small = TeacherTokenizer(restrict=True, max_size=len(full) - 20)(texts, teacher)
    assert len(frequent) < len(full) and len(full) - 25 <= len(small) <= len(full) - 20
    for tokenizer in (frequent, small):
        assert set(tokenizer.get_vocab()) < set(full.get_vocab())
        assert all(tokenizer(texts)["input_ids"])
        if kind != "words":  # every character is kept
            ids = (each(texts)["input_ids"] for each in (tokenizer, full))
            unknown = [sum(row.count(full.unk_token_id) for row in rows) for rows in ids]
            assert unknown[0] == unknown[1]
    with pytest.raises(KDError, match=r"tokenizer.max_size must leave room for the \d+ special tokens .* got 2"):
        TeacherTokenizer(restrict=True, max_size=2)(texts, teacher)


@every_kind
def test_it_is_saved_and_loaded(kind, tmp_path):
    texts = contents(20, seed=3)
    tokenizer = TeacherTokenizer(restrict=True)(texts, whole(kind))
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert pieces(loaded, texts) == pieces(tokenizer, texts)
    assert loaded.get_vocab() == tokenizer.get_vocab()


@every_kind
def test_the_teachers_rows_follow_the_new_numbers(kind):
    teacher, texts = whole(kind), contents(20, seed=4)
    tokenizer = TeacherTokenizer(restrict=True)(texts, teacher)
    table = torch.arange(len(teacher))[:, None].float().repeat(1, 3)
    rows = teacher_rows(tokenizer, TeacherTable(table, teacher))
    assert len(rows) == len(tokenizer)
    for text in texts:
        own, theirs = tokenizer(text)["input_ids"], teacher(text)["input_ids"]
        assert [int(rows[number][0]) for number in own] == theirs


def test_the_penalty_of_an_unknown_character_stays():
    """Without the piece with the lowest score, "<unk>b" would become better than the piece "ab".

    Of a Unigram vocabulary, only the characters that occur are kept.
    """
    scored = [("<unk>", 0.0), ("ab", -15.0), ("b", -1.0), ("zz", -20.0), ("c", -1.0)]
    backend = json.loads(Tokenizer(models.Unigram(scored, unk_id=0)).to_str())
    kept = restricted(backend, Counter({1: 1}))
    assert [piece for piece, _ in kept["model"]["vocab"]] == ["<unk>", "zz", "ab", "b"]
    assert kept["model"]["unk_id"] == 0
    assert Tokenizer.from_str(json.dumps(kept)).encode("ab").tokens == ["ab"]


def test_what_is_of_another_kind_is_refused():
    backend = backend_json(whole("words"))
    with pytest.raises(KDError, match=r"expected a vocabulary of type WordPiece, .* found Neural; use tokenizer=words"):
        require_known(backend | {"model": {"type": "Neural"}})
    with pytest.raises(KDError, match="cannot renumber a post-processor of type Later; use tokenizer=teacher"):
        require_known(backend | {"post_processor": {"type": "Sequence", "processors": [{"type": "Later"}]}})
    backend["post_processor"]["special_tokens"]["<s>"]["ids"] = [99999]
    with pytest.raises(KDError, match="puts the token number 99999 around a text, which its vocabulary lacks"):
        restricted(backend, Counter())
