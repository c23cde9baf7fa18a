"""Tokenise each distinct word only once: the same token ids as BERT's tokenizer, in less time. Needs no numpy.

BERT's tokenizer normalises each character by itself, splits at white space and tokenises each word by itself. So the
text between two spaces always has the same token ids, and most words of a text have come in earlier ones.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from tokenizers import Tokenizer

WORDS_KEPT = 100_000
"""Words whose token ids are kept for the next texts."""
LONGEST_KEPT = 40
"""Characters of a word that is kept. Longer ones are no words, and would fill the memory of a server."""


class Words:
    """Gives the token ids of texts, word by word; see `Words.of`.

    Args:
        backend: tokenises each word independently of its neighbours, without truncation and padding.
        start, end: ids of the special tokens before and after every text.
    """

    def __init__(self, backend: Tokenizer, start: Sequence[int], end: Sequence[int]):
        self.backend, self.start, self.end = backend, list(start), list(end)
        self.known: dict[str, list[int]] = {}

    @classmethod
    def of(cls, backend: Tokenizer) -> Words | None:
        """Return the words of a tokenizer; None if the tokens of a word may depend on its neighbours.

        Args:
            backend: without truncation and padding. It must have BERT's normalizer and pre-tokenizer, and add the same
                special tokens to every text.
        """
        parts = [backend.normalizer, backend.pre_tokenizer]
        if [type(part).__name__ for part in parts] != ["BertNormalizer", "BertPreTokenizer"]:
            return None
        added = backend.get_added_tokens_decoder().values()
        if type(backend.model).__name__ not in ("WordPiece", "WordLevel") or any(" " in one.content for one in added):
            return None
        whole, inner = (backend.encode("a", add_special_tokens=special).ids for special in (True, False))
        if len(inner) != 1 or whole.count(inner[0]) != 1:
            return None
        place = whole.index(inner[0])
        return cls(backend, whole[:place], whole[place + 1 :])

    def __call__(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Return the token ids of each text with special tokens, truncated on the right to ``max_length`` tokens."""
        rows, kept = [text.split(" ") for text in texts], max_length - len(self.start) - len(self.end)
        ids = self.ids(chain.from_iterable(rows))
        return [[*self.start, *[one for word in row for one in ids[word]][:kept], *self.end] for row in rows]

    def ids(self, words: Iterable[str]) -> Mapping[str, list[int]]:
        """Return the ids of each word. Only new words are tokenised."""
        known = self.known  # read once, because another thread may put an empty one in its place
        if len(known) > WORDS_KEPT:
            self.known = known = {}
        if not (new := [word for word in dict.fromkeys(words) if word not in known]):
            return known
        encodings = self.backend.encode_batch_fast(new, add_special_tokens=False)
        found = {word: encoding.ids for word, encoding in zip(new, encodings, strict=True)}
        known |= {word: ids for word, ids in found.items() if len(word) <= LONGEST_KEPT}
        return ChainMap(found, known)
