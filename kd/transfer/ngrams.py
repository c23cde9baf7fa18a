"""An n-gram model with interpolated Kneser-Ney smoothing.

Kneser and Ney 1995; Chen and Goodman 1999, https://doi.org/10.1006/csla.1999.0128
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate

START, END = "<s>", "</s>"
DISCOUNT = 0.75
"""Taken from each count, and given to the shorter context."""
LONGEST = 200
"""Tokens after which a sampled text ends."""


class Ngrams:
    """Probabilities of the next token after the last ``order - 1`` tokens.

    Args:
        texts: the tokens of each text.
        order: largest length of an n-gram.
    """

    def __init__(self, texts: Iterable[Sequence[str]], order: int):
        self.order = order
        counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for text in texts:
            padded = [*[START] * (order - 1), *text, END]
            for place in range(order - 1, len(padded)):
                counts[tuple(padded[place - order + 1 : place])][padded[place]] += 1
        self.levels = [counts]
        for _ in range(order - 1):  # a shorter context counts the different tokens that stand before it
            shorter: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
            for context, following in self.levels[0].items():
                for token in following:
                    shorter[context[1:]][token] += 1
            self.levels.insert(0, shorter)
        self.totals = [{context: sum(found.values()) for context, found in level.items()} for level in self.levels]
        self.sums: dict[tuple[str, ...], tuple[list[str], list[float]]] = {}  # of the contexts drawn from so far
        self.uniform = 1 / (len(self.levels[0][()]) + 1)  # one more for all tokens that were never seen

    def probability(self, token: str, context: Sequence[str]) -> float:
        """Return the probability of a token after the last tokens of a context.

        >>> model = Ngrams([["a", "film"], ["a", "plot"]], order=2)
        >>> round(sum(model.probability(token, ["a"]) for token in ("a", "film", "plot", END, "?")), 6)
        1.0
        """
        found = self.uniform
        for level in range(self.order):
            key = tuple(context[len(context) - level :])
            if total := self.totals[level].get(key):
                following = self.levels[level][key]
                discounted = max(following.get(token, 0) - DISCOUNT, 0)
                found = (discounted + DISCOUNT * len(following) * found) / total
        return found

    def entropy(self, text: Sequence[str]) -> float:
        """Return the cross-entropy of a text, in nats a token."""
        padded = [*[START] * (self.order - 1), *text, END]
        places = range(self.order - 1, len(padded))
        logs = (math.log(self.probability(padded[at], padded[at - self.order + 1 : at])) for at in places)
        return -sum(logs) / len(places)

    def sample(self, random: random.Random) -> list[str]:
        """Return the tokens of a new text, drawn one by one."""
        text = [START] * (self.order - 1)
        while len(text) < LONGEST + self.order - 1:
            token = self._next(text, random)
            if token == END:
                break
            text.append(token)
        return text[self.order - 1 :]

    def _next(self, text: list[str], random: random.Random) -> str:
        """Draw a token: go to a shorter context with the probability that the smoothing gives to it."""
        for level in range(self.order - 1, -1, -1):
            key = tuple(text[len(text) - level :])
            following = self.levels[level].get(key)
            if following and (level == 0 or random.random() * self.totals[level][key] >= DISCOUNT * len(following)):
                if key not in self.sums:
                    discounted = (count - DISCOUNT * (level > 0) for count in following.values())
                    self.sums[key] = list(following), list(accumulate(discounted))
                tokens, sums = self.sums[key]
                return random.choices(tokens, cum_weights=sums)[0]
        raise AssertionError("the shortest context has tokens")
