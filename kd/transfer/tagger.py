"""Read an averaged perceptron that tags English words with their part of speech.

The weights are trained on the English Web Treebank of Universal Dependencies (CC BY-SA 4.0), with the features of
Honnibal 2013, https://explosion.ai/blog/part-of-speech-pos-tagger-in-python
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from kd.errors import KDError

START, END = "<s>", "</s>"


class Tagger:
    """A part-of-speech tagger.

    Args:
        path: a gzipped JSON object with ``classes`` (the tags), ``tagdict`` (word -> its only tag) and ``weights``
            (feature -> tag -> weight).

    Raises:
        KDError: the file is no such tagger.
    """

    def __init__(self, path: Path):
        try:
            content = json.loads(gzip.decompress(path.read_bytes()))
            self.tags = sorted(content["classes"])
            self.weights: dict[str, dict[str, float]] = dict(content["weights"])
            self.known: dict[str, str] = dict(content["tagdict"])
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise KDError(
                f"expected a tagger as gzipped JSON at '{path}', found none ({error}); give another"
            ) from error

    def tag(self, words: Sequence[str]) -> list[str]:
        """Return the tag of each word of a sentence, from left to right.

        The form of a verb is a part of its tag, such as ``VERB|Part``.
        """
        lower, found = [word.lower() for word in words], [START, START]
        for place, word in enumerate(words):
            found.append(self.known.get(lower[place]) or self._predicted(place, word, lower, *found[-2:]))
        return found[2:]

    def _predicted(self, place: int, word: str, sentence: Sequence[str], second: str, last: str) -> str:
        """Return the tag with the largest sum of weights."""
        scores: dict[str, float] = defaultdict(float)
        for feature in features(place, word, sentence, second, last):
            for tag, weight in self.weights.get(feature, {}).items():
                scores[tag] += weight
        return max(self.tags, key=lambda tag: (scores.get(tag, 0.0), tag))


def features(place: int, word: str, sentence: Sequence[str], second: str, last: str) -> Iterator[str]:
    """Yield the features of a word, as the weights name them.

    Args:
        place: number of the word in the sentence.
        word: as it is written.
        sentence: all words in small letters.
        second, last: the tags of the two words before.
    """
    lower, shape = sentence[place], "X" if word[:1].isupper() else "x"
    yield "bias"
    yield from (f"suf{size} {lower[-size:]}" for size in (3, 2, 1))
    yield f"pre1 {lower[:1]}"
    yield f"shape {shape}{'d' if any(map(str.isdigit, word)) else ''}"
    yield f"w {lower}"
    yield f"t-1 {last}"
    yield f"t-2 {second}"
    yield f"t-1t-2 {last} {second}"
    for step in (-1, -2, 1, 2):
        other = place + step
        neighbour = START if other < 0 else END if other >= len(sentence) else sentence[other]
        yield f"w{step:+d} {neighbour}"
    yield f"t-1 w {last} {lower}"
