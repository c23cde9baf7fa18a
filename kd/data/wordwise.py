"""Tokenise many texts at once, each distinct word once; see `kd.data.words`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from kd.data.words import Words

Pieces = tuple[np.ndarray, np.ndarray]
"""Ids of all rows one after the other, int32, and the number of ids in each row."""


class WordwiseTokenizer:
    """Tokenises texts word by word; see `wordwise_tokenizer`.

    Args:
        words: give the token ids of each word, and the special tokens.
    """

    def __init__(self, words: Words):
        self.words, self.start, self.end = words, words.start, words.end

    def __call__(self, texts: Sequence[str], max_length: int) -> Pieces:
        """Return the token ids of texts with special tokens, truncated to ``max_length`` tokens."""
        words = pc.split_pattern(pa.array(texts, pa.large_string()), " ")
        distinct = words.values.dictionary_encode()
        names = distinct.dictionary.to_pylist()
        found = self.words.ids(names)
        tokenised = [found[name] for name in names]
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


@lru_cache(maxsize=8)
def wordwise_tokenizer(tokenizer: PreTrainedTokenizerBase) -> WordwiseTokenizer | None:
    """Return a faster equivalent of a tokenizer; None if the tokens of a word may depend on its neighbours.

    Args:
        tokenizer: must truncate on the right, and fit `Words.of`.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.truncation_side != "right":
        return None
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    words = Words.of(backend)
    return WordwiseTokenizer(words) if words else None
