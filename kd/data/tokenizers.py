"""Make the student's tokenizer: the teacher's, the teacher's with a smaller vocabulary, words, or a checkpoint's.

Each class is called as ``make(texts, teacher) -> tokenizer``. All tokenizers pad on the right, save with
``save_pretrained`` and load with ``AutoTokenizer``.
"""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from kd.data.restriction import require_known, restricted
from kd.errors import KDError
from kd.options.declared import SIZES, Checked, Count
from kd.storage.assets import resolve
from kd.storage.checksum import digest
from kd.storage.model_folder import load_tokenizer, local_model

READ = ["input_ids", "attention_mask"]
TEXTS_AT_ONCE = 1024
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[MASK]"]

VocabularySize = Annotated[int, Ge(len(SPECIAL_TOKENS) + 1), SIZES]
"""At least one token that is a word."""


class StudentTokenizer(Checked, ABC):
    """The base of the classes that make the student's tokenizer."""

    @abstractmethod
    def __call__(self, texts: Iterable[str], teacher: PreTrainedTokenizerBase | None = None) -> PreTrainedTokenizerBase:
        """Return the student's tokenizer.

        Args:
            texts: the training texts; read at most once, to learn the vocabulary.
            teacher: the teacher's tokenizer, which is not changed.

        Raises:
            KDError: the teacher's tokenizer or the checkpoint is missing or unsuitable.
        """


class TeacherTokenizer(StudentTokenizer):
    """The teacher's tokenizer, with its whole vocabulary or with the part that the training texts need.

    A restricted vocabulary keeps the special tokens, the single characters (so that an unseen word still has tokens)
    and the pieces that occur in the training texts, which are tokenised as before; see `kd.data.restriction`.

    Args:
        restrict: whether to drop the pieces that do not occur.
        min_count: a piece must occur this often to be kept. Above 1, words with rare pieces become shorter pieces.
        max_size: largest number of tokens, the most frequent pieces first; null keeps all that occur.
    """

    def __init__(self, restrict: bool = False, min_count: Count = 1, max_size: Count | None = None):
        self.restrict, self.min_count, self.max_size = restrict, min_count, max_size

    def __call__(self, texts: Iterable[str], teacher: PreTrainedTokenizerBase | None = None) -> PreTrainedTokenizerBase:
        """Return a copy of the teacher's tokenizer, restricted if asked for."""
        if teacher is None:
            raise KDError("tokenizer=teacher and =restricted need a teacher; set teacher=... or tokenizer=words")
        if self.restrict:
            return self._restricted(texts, teacher)
        tokenizer = copy.deepcopy(teacher)
        tokenizer.padding_side = "right"
        return tokenizer

    def _restricted(self, texts: Iterable[str], teacher: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        backend = backend_json(teacher)
        require_known(backend)
        counts = _count(Tokenizer.from_str(json.dumps(backend)), texts)
        kept = restricted(backend, counts, self.min_count, self.max_size)
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(kept)),
            model_max_length=teacher.model_max_length,
            model_input_names=READ,
            padding_side="right",
            **teacher.special_tokens_map,
        )


class WordTokenizer(StudentTokenizer):
    """A tokenizer of whole words, punctuation marks and single Chinese characters, learnt from the training texts.

    Every text begins with [CLS], so that a text without a known word is not empty: the output of a transformer for a
    row of padding alone is undefined.

    Args:
        max_size: largest number of tokens, the most frequent words first; four of them are special tokens.
        min_count: a word must occur this often to be in the vocabulary.
        lowercase: whether to lowercase the texts and remove accents.
    """

    def __init__(self, max_size: VocabularySize = 20000, min_count: Count = 2, lowercase: bool = True):
        self.max_size, self.min_count, self.lowercase = max_size, min_count, lowercase

    def __call__(self, texts: Iterable[str], teacher: PreTrainedTokenizerBase | None = None) -> PreTrainedTokenizerBase:
        """Return a tokenizer with the words of these texts.

        Raises:
            KDError: no word is frequent enough.
        """
        tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
        tokenizer.normalizer = BertNormalizer(lowercase=self.lowercase)
        tokenizer.pre_tokenizer = BertPreTokenizer()
        trainer = WordLevelTrainer(
            vocab_size=self.max_size, min_frequency=self.min_count, special_tokens=SPECIAL_TOKENS, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        if tokenizer.get_vocab_size() <= len(SPECIAL_TOKENS):
            raise KDError(
                f"tokenizer.min_count={self.min_count}: expected words that occur so often in the training texts, "
                "found none, so that every word would be unknown; lower it"
            )
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
    """The tokenizer of a pretrained model. No code of the model is run.

    Args:
        name_or_path: a folder, or a name on the hub; ``org/model@commit`` pins it to a commit.
    """

    def __init__(self, name_or_path: str):
        self.name_or_path = name_or_path

    def __call__(self, texts: Iterable[str], teacher: PreTrainedTokenizerBase | None = None) -> PreTrainedTokenizerBase:
        """Load the tokenizer."""
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
    """Return a tokenizer as JSON, without truncation and padding, which change with each call.

    Raises:
        KDError: the tokenizer is written in pure Python.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise KDError(
            f"expected a tokenizer of the `tokenizers` library, got {type(tokenizer).__name__}; convert it "
            "to tokenizer.json, or use tokenizer=words"
        )
    return json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of `backend_json`. Tokenizers with the same fingerprint tokenise every text alike."""
    return digest(backend_json(tokenizer))


def _count(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    counts: Counter[int] = Counter()
    texts = iter(texts)
    while chunk := list(islice(texts, TEXTS_AT_ONCE)):
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
            counts.update(encoding.ids)
    return counts
