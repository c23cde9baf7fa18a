"""Number the n-grams of a text inside a model: those of words from the token ids, those of characters from a table.

B rows, L tokens, V words of the vocabulary, K character n-grams of the longest word. Only integer arithmetic without
branches on data is used, so that a model with these functions can be exported.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from kd.errors import OptionError

PRIME, FACTOR = 2**31 - 1, 1_000_003
"""Modulus and factor of the hash: a product of a number below the one with the other fits into 64 bits."""
MOST = 48
"""The largest number of character n-grams that a word has in the table; longer words lose their last ones."""

Characters = Literal[0] | tuple[Annotated[int, Ge(1), Le(10)], Annotated[int, Ge(1), Le(10)]]
"""Lengths of the character n-grams, the shortest and the longest; 0 means none."""


def word_keys(ids: Tensor, mask: Tensor, longest: int, base: int, modulus: int | None = None) -> Tensor:
    """Return the numbers ``[B, longest * L]`` of all n-grams of 1 to ``longest`` words; -1 where one has padding.

    Args:
        ids: ``[B, L]``, int64.
        mask: ``[B, L]``, bool.
        longest: number of words of the longest n-gram.
        base: the ids, each plus 1, are the digits of the number to this base.
        modulus: None gives each n-gram a number of its own, which must fit into 64 bits; otherwise the remainder,
            which depends on the length of the n-gram too.
    """
    length, keys = ids.shape[1], []
    digits, real = F.pad(ids + 1, (0, longest - 1)), F.pad(mask, (0, longest - 1))
    number, whole = torch.zeros_like(ids), torch.ones_like(mask)
    for n in range(1, longest + 1):  # the number of n words is that of the first n - 1, and one digit
        number = number * base + digits.narrow(1, n - 1, length)
        whole = whole & real.narrow(1, n - 1, length)
        key = number
        if modulus is not None:
            number = number % modulus
            key = (number + n * pow(base, n, modulus)) % modulus  # the length is one more digit, the highest
        keys.append(key.masked_fill(~whole, -1))
    return torch.cat(keys, dim=1)


def in_buckets(keys: Tensor, buckets: int) -> Tensor:
    """Return a row from 1 to ``buckets`` for each number below `PRIME`, and row 0 for -1."""
    return (keys % buckets + 1).masked_fill(keys < 0, 0)


def spelled(
    tokens: Sequence[str], special: Collection[int], shortest: int, longest: int, prefix: str = "##"
) -> np.ndarray:
    """Return the numbers of the character n-grams of each word, ``[V, K]`` int32, filled up with -1.

    The n-grams of all words are numbered from 0. A word is read between the signs ``<`` and ``>``, as fastText does; a
    token that begins with the prefix goes on within a word and has no first sign.

    Args:
        tokens: the vocabulary in the order of its ids.
        special: ids of tokens that are no words.
        shortest, longest: lengths of the n-grams in characters.
        prefix: marks tokens that go on within a word.

    Source: Bojanowski et al., Enriching Word Vectors with Subword Information, 2017, https://aclanthology.org/Q17-1010
    """
    numbers: dict[str, int] = {}
    rows: list[list[int]] = []
    for number, token in enumerate(tokens):
        word = f"{token[len(prefix) :]}>" if token.startswith(prefix) and token != prefix else f"<{token}>"
        sizes = range(shortest, longest + 1)
        found = [word[start : start + size] for size in sizes for start in range(len(word) - size + 1)]
        kept = [] if number in special else list(dict.fromkeys(found))[:MOST]
        rows.append([numbers.setdefault(ngram, len(numbers)) for ngram in kept])
    table = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int32)
    for row, found_numbers in zip(table, rows, strict=True):
        row[: len(found_numbers)] = found_numbers
    return table


def require_range(characters: int | Sequence[int]) -> None:
    """Refuse lengths of character n-grams of which the first is the larger one."""
    if characters and list(characters) != sorted(characters):  # type: ignore[arg-type]  # 0 is no list
        raise OptionError("characters", "0 or a range such as [3, 5]", characters)


class Speller(nn.Module):
    """A base of students that can read the characters of their words: the table of `spelled` as a buffer."""

    spelling: Tensor | None

    def new_spelling(self, characters: int | Sequence[int], size: int, width: int) -> None:
        """Register the buffer ``[size, width]``, without its numbers, which `spell` or a saved model fills in."""
        table = torch.full((size, width), -1, dtype=torch.int32) if characters else None
        self.register_buffer("spelling", table)

    def spell(self, tokens: Sequence[str], special: Collection[int]) -> None:
        """Fill the buffer for a vocabulary; do nothing in a student that reads no characters."""
        config: Any = self.config
        if config.characters:
            self.spelling = torch.from_numpy(spelled(tokens, special, *config.characters))
            config.spelled = self.spelling.shape[1]

    def character_keys(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the numbers ``[B, L * K]`` of the character n-grams of all words; -1 for none."""
        assert self.spelling is not None
        return self.spelling[ids].long().masked_fill(~mask.unsqueeze(-1), -1).flatten(1)
