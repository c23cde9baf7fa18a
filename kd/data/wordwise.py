"""Tokenise each distinct word of many texts only once: the same token ids as BERT's tokenizer, in less time.

BERT's tokenizer normalises each character by itself, splits at white space and tokenises each word by itself. So the
text between two spaces always has the same token ids, and a few thousand texts have most of their words in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

WORDS_KEPT = 100_000
"""Words whose token ids are kept for the next texts."""
Pieces = tuple[np.ndarray, np.ndarray]
"""Ids of all rows one after the other, int32, and the number of ids in each row."""


class WordwiseTokenizer:
    """Tokenises texts word by word; see `wordwise_tokenizer`.

    Args:
        backend: tokenises each word independently of its neighbours, without truncation and padding.
        start, end: ids of the special tokens before and after every text.
    """

    def __init__(self, backend: Tokenizer, start: Sequence[int], end: Sequence[int]):
        self.backend, self.start, self.end = backend, list(start), list(end)
        self.known: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str], max_length: int) -> Pieces:
        """Return the token ids of texts with special tokens, truncated to ``max_length`` tokens."""
        words = pc.split_pattern(pa.array(texts, pa.large_string()), " ")
        distinct = words.values.dictionary_encode()
        tokenised = self._tokenised(distinct.dictionary.to_pylist())
        pieces = np.fromiter(chain.from_iterable(tokenised), dtype=np.int32)
        sizes = np.fromiter(map(len, tokenised), dtype=np.int64)
        occurring = distinct.indices.to_numpy()
        counts = sizes[occurring]  # pieces of each occurrence
        ends = np.concatenate([[0], np.cumsum(counts)])
        borders = ends[words.offsets.to_numpy()]  # pieces before each row
        kept = np.minimum(np.diff(borders), max_length - len(self.start) - len(self.end))
        starts = (np.cumsum(sizes) - sizes)[occurring]
        flat = pieces[np.repeat(starts - ends[:-1], counts) + np.arange(ends[-1])]
        within = np.arange(len(flat)) - np.repeat(borders[:-1], np.diff(borders))
        ids = flat[within < np.repeat(kept, np.diff(borders))]
        # The borders of each row, where its special tokens are inserted.
        sides = np.stack([np.cumsum(kept) - kept, np.cumsum(kept)], axis=1)
        places = np.repeat(sides, [len(self.start), len(self.end)], axis=1).ravel()
        special = np.tile(np.array([*self.start, *self.end], dtype=np.int32), len(kept))
        return np.insert(ids, places, special), kept + len(self.start) + len(self.end)

    def _tokenised(self, words: list[str]) -> list[list[int]]:
        """Return the ids of each word. Only new words are tokenised."""
        if len(self.known) > WORDS_KEPT:
            self.known = {}
        new = [word for word in words if word not in self.known]
        found = self.backend.encode_batch_fast(new, add_special_tokens=False)
        self.known |= {word: encoding.ids for word, encoding in zip(new, found, strict=True)}
        return [self.known[word] for word in words]


@lru_cache(maxsize=8)
def wordwise_tokenizer(tokenizer: PreTrainedTokenizerBase) -> WordwiseTokenizer | None:
    """Return a faster equivalent of a tokenizer; None if the tokens of a word may depend on its neighbours.

    Args:
        tokenizer: must have BERT's normalizer and pre-tokenizer, truncate on the right, and add the same special tokens
            to every text.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.truncation_side != "right":
        return None
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    parts = [backend.normalizer, backend.pre_tokenizer]
    if [type(part).__name__ for part in parts] != ["BertNormalizer", "BertPreTokenizer"]:
        return None
    added = backend.get_added_tokens_decoder().values()
    if type(backend.model).__name__ not in ("WordPiece", "WordLevel") or any(" " in token.content for token in added):
        return None
    whole, inner = (backend.encode("a", add_special_tokens=special).ids for special in (True, False))
    if len(inner) != 1 or whole.count(inner[0]) != 1:
        return None
    place = whole.index(inner[0])
    return WordwiseTokenizer(backend, whole[:place], whole[place + 1 :])
