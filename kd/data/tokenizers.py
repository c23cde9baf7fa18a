"""The student's tokenizer: the teacher's own, the same with fewer pieces, or words of the training texts.

Each way is called as ``make(texts, teacher_tokenizer) -> tokenizer``; all of them pad on the right, save
with ``save_pretrained`` and reload with ``AutoTokenizer``.
"""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from kd.errors import KDError
from kd.storage.assets import resolve
from kd.storage.model_folder import load_tokenizer, local_model

READ = ["input_ids", "attention_mask"]
TEXTS_AT_ONCE = 1024


class StudentTokenizer(ABC):
    """A way to make the student's tokenizer."""

    @abstractmethod
    def __call__(
        self, texts: Iterable[str], teacher_tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedTokenizerBase:
        """The student's tokenizer.

        Args:
            texts: the training texts; read once, and only where the vocabulary is learnt.
            teacher_tokenizer: left as it is.

        Raises:
            KDError: what this way needs is not there.
        """


class TeacherTokenizer(StudentTokenizer):
    """The teacher's tokenizer, whole or with the word pieces that the training texts need.

    Restricted, it keeps the special tokens, every single character of the vocabulary (so that an unseen
    word still has pieces) and the pieces that occur. Longest match first finds the same pieces with fewer
    to choose from, as long as those it would find are there: the training texts are cut as before.

    Args:
        restrict: drop the pieces that do not occur; WordPiece only.
        min_count: keep a piece that occurs at least so often. Above 1, words with rarer pieces are cut finer.
        max_size: at most so many tokens, the most frequent pieces first; None keeps all that occur.
    """

    def __init__(self, restrict: bool = False, min_count: int = 1, max_size: int | None = None):
        self.restrict = restrict
        self.min_count = _at_least_one("tokenizer.min_count", min_count)
        self.max_size = None if max_size is None else _at_least_one("tokenizer.max_size", max_size)

    def __call__(
        self, texts: Iterable[str], teacher_tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedTokenizerBase:
        """The teacher's tokenizer, padding on the right."""
        if teacher_tokenizer is None:
            raise KDError("tokenizer=teacher and =restricted need a teacher; set teacher=... or tokenizer=words")
        if self.restrict:
            return self._restricted(texts, teacher_tokenizer)
        tokenizer = copy.deepcopy(teacher_tokenizer)
        tokenizer.padding_side = "right"
        return tokenizer

    def _restricted(self, texts: Iterable[str], teacher: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        backend = backend_json(teacher)
        if backend["model"]["type"] != "WordPiece":
            raise KDError(
                f"tokenizer=restricted cuts down WordPiece vocabularies, and the teacher's is of type "
                f"{backend['model']['type']}; use tokenizer=words or tokenizer=teacher"
            )
        counts = _count(Tokenizer.from_str(json.dumps(backend)), texts)
        restricted = Tokenizer.from_str(json.dumps(_renumbered(backend, self._kept(backend, counts))))
        return PreTrainedTokenizerFast(
            tokenizer_object=restricted,
            model_max_length=teacher.model_max_length,
            model_input_names=READ,
            padding_side="right",
            **teacher.special_tokens_map,
        )

    def _kept(self, backend: dict[str, Any], counts: Counter[int]) -> list[str]:
        """The tokens to keep, special ones first, otherwise in the teacher's order."""
        vocabulary: dict[str, int] = backend["model"]["vocab"]
        prefix = backend["model"]["continuing_subword_prefix"]
        added = {token["content"]: token["id"] for token in backend["added_tokens"]}
        added[backend["model"]["unk_token"]] = vocabulary[backend["model"]["unk_token"]]
        pieces = [piece for piece in vocabulary if piece not in added]
        characters = {piece for piece in pieces if len(piece.removeprefix(prefix)) == 1}
        found = [piece for piece in pieces if piece not in characters]
        found = [piece for piece in found if counts[vocabulary[piece]] >= self.min_count]
        if self.max_size is not None:
            room = self.max_size - len(added) - len(characters)
            if room < 0:
                raise KDError(
                    f"tokenizer.max_size must leave room for the {len(added)} special tokens and the "
                    f"{len(characters)} characters of the vocabulary, got {self.max_size}; set "
                    f"tokenizer.max_size={self.max_size - room} or more, or use tokenizer=words"
                )
            found = sorted(found, key=lambda piece: (-counts[vocabulary[piece]], vocabulary[piece]))[:room]
        return sorted(added, key=added.get) + sorted({*characters, *found}, key=vocabulary.get)


class WordTokenizer(StudentTokenizer):
    """Whole words and punctuation marks, learnt from the training texts; Chinese characters one by one.

    [CLS] stands in front, so that a text without a word is not empty: a transformer student has no answer to
    a row of nothing but padding.

    Args:
        max_size: at most so many tokens, the most frequent words first.
        min_count: keep a word that occurs at least so often.
        lowercase: fold case, and strip accents.
    """

    def __init__(self, max_size: int = 20000, min_count: int = 2, lowercase: bool = True):
        self.max_size = _at_least_one("tokenizer.max_size", max_size)
        self.min_count = _at_least_one("tokenizer.min_count", min_count)
        self.lowercase = lowercase

    def __call__(
        self, texts: Iterable[str], teacher_tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedTokenizerBase:
        """A tokenizer of words."""
        tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
        tokenizer.normalizer = BertNormalizer(lowercase=self.lowercase)
        tokenizer.pre_tokenizer = BertPreTokenizer()
        trainer = WordLevelTrainer(
            vocab_size=self.max_size,
            min_frequency=self.min_count,
            special_tokens=["[PAD]", "[UNK]", "[CLS]", "[MASK]"],
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        start = ("[CLS]", tokenizer.token_to_id("[CLS]"))
        tokenizer.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[start])
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            model_input_names=READ,
            padding_side="right",
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            mask_token="[MASK]",
        )


class PretrainedTokenizer(StudentTokenizer):
    """The tokenizer that a checkpoint comes with.

    Args:
        name_or_path: a name on the hub (``org/model@commit`` pins it) or a folder. Code that comes with it never runs.
    """

    def __init__(self, name_or_path: str):
        self.name_or_path = name_or_path

    def __call__(
        self, texts: Iterable[str], teacher_tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedTokenizerBase:
        """The checkpoint's tokenizer, padding on the right."""
        place = resolve(self.name_or_path)
        try:
            folder = Path(place) if Path(place).is_dir() else local_model(place, "tokenizer")
        except KDError as error:
            raise KDError(
                f"no tokenizer in '{self.name_or_path}' ({error}); set student.name_or_path to a model on the hub or a "
                "folder with tokenizer.json"
            ) from error
        tokenizer = load_tokenizer(folder)
        if tokenizer.pad_token is None:
            raise KDError(
                f"the tokenizer of '{self.name_or_path}' has no padding token, and batches need one; choose "
                "an encoder such as BERT, RoBERTa or DeBERTa"
            )
        return tokenizer


def backend_json(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What a tokenizer does to a text, without truncation and padding, which change from call to call.

    Raises:
        KDError: a tokenizer in pure Python.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise KDError(
            f"a tokenizer of the `tokenizers` library is needed, got {type(tokenizer).__name__}; convert it "
            "to tokenizer.json, or use tokenizer=words"
        )
    return json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """The SHA-256 of `backend_json`: equal for tokenizers that cut every text alike."""
    return hashlib.sha256(json.dumps(backend_json(tokenizer), sort_keys=True).encode()).hexdigest()


def _count(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for chunk in _chunks(texts):
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
            counts.update(encoding.ids)
    return counts


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while chunk := list(islice(texts, TEXTS_AT_ONCE)):
        yield chunk


def _renumbered(backend: dict[str, Any], kept: list[str]) -> dict[str, Any]:
    """The same tokenizer with only these tokens, in this order."""
    ids = {token: number for number, token in enumerate(kept)}
    backend = copy.deepcopy(backend)
    backend["model"]["vocab"] = ids
    for token in backend["added_tokens"]:
        token["id"] = ids[token["content"]]
    processor = backend["post_processor"] or {"type": None}
    match processor["type"]:
        case "TemplateProcessing":
            for special in processor["special_tokens"].values():
                special["ids"] = [ids[token] for token in special["tokens"]]
        case "BertProcessing":
            for end in ("sep", "cls"):
                processor[end][1] = ids[processor[end][0]]
        case None:
            pass
        case other:
            raise KDError(
                f"tokenizer=restricted cannot renumber a post-processor of type {other}; use tokenizer=teacher"
            )
    return backend


def _at_least_one(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise KDError(f"{name} must be an integer of at least 1, got {value!r}; set {name}=...")
    return value
