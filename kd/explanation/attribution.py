"""What each word of a text adds to the log-odds of a label, by leaving it out. Needs no torch.

N texts, W words of a text, C labels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Regex, pre_tokenizers

from kd.classifier import Classifier, label_order

SPLIT = pre_tokenizers.Sequence(
    [
        pre_tokenizers.WhitespaceSplit(),
        # Letters of scripts without blanks, and marks, each by itself; but not the apostrophe in "don't".
        pre_tokenizers.Split(
            Regex(r"[\p{Han}\p{Hiragana}\p{Katakana}]|(?!(?<=\p{L})['’]\p{L})[\p{P}\p{S}]+"), "isolated"
        ),
    ]
)
Span = tuple[int, int]
TOKENS = 1 << 14
"""Tokens in a batch. A text has no more than it has letters, and no more than the classifier reads."""


@dataclass(frozen=True)
class Model:
    """A classifier that is explained.

    Args:
        name: as it is shown.
        classifier: any of `kd.classifier`.
        label_names: the order of its logits here; the student's in all models.
        batch_size: texts at a time.

    Raises:
        KDError: the classifier has other labels.
    """

    name: str
    classifier: Classifier
    label_names: Sequence[str]
    batch_size: int = 64

    def __post_init__(self) -> None:
        self.order  # noqa: B018  it refuses other labels

    @property
    def order(self) -> list[int]:
        """Return the place of each label in the classifier's own logits."""
        return label_order(self.classifier.label_names, self.label_names, f"the {self.name}")

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return ``[N, C]``, in the order of ``label_names``; long texts are read in smaller batches."""
        longest = min(self.classifier.max_length, max(map(len, texts), default=1))
        size = max(1, min(self.batch_size, TOKENS // longest))
        return self.classifier.logits(texts, size)[:, self.order]

    def log_odds(self, texts: Sequence[str], labels: np.ndarray) -> np.ndarray:
        """Return ``[N]``: the log-odds of a label of each text, which is ``log(p / (1 - p))``."""
        logits = self.logits(texts).astype(np.float64)
        own = labels[:, None] == np.arange(logits.shape[1])
        return logits[own] - np.logaddexp.reduce(np.where(own, -np.inf, logits), axis=1)


@dataclass(frozen=True)
class Attribution:
    """The influence of the words of a text on the log-odds of a label.

    Args:
        values: ``[W]``.
        odds: the log-odds for the text.
        change: from the text without words to the text, and the sum of all influences, which should be equal. None for
            a method that does not promise it.
    """

    values: np.ndarray
    odds: float
    change: tuple[float, float] | None = None

    @property
    def gap(self) -> float | None:
        """By how much the sum of the influences misses the change."""
        return None if self.change is None else abs(self.change[1] - self.change[0])


def words_of(text: str) -> list[Span]:
    """Return where the words and punctuation marks of a text begin and end.

    >>> [text[start:end] for text in ["I don't, 电影!"] for start, end in words_of(text)]
    ['I', "don't", ',', '电', '影', '!']
    """
    return [span for _, span in SPLIT.pre_tokenize_str(text)]


def without(text: str, spans: Sequence[Span], left_out: Collection[int]) -> str:
    """Return a text without some of its words.

    >>> without("a very good film", [(0, 1), (2, 6), (7, 11), (12, 16)], [1, 3])
    'a good'
    """
    marks = list(text)
    for word in left_out:
        start, end = spans[word]
        marks[start:end] = [""] * (end - start)
    return " ".join("".join(marks).split())


def occlusion(model: Model, texts: Sequence[str], labels: np.ndarray) -> list[Attribution]:
    """Return by how much the log-odds of each label fall when a word is left out, for all words of all texts.

    Source: Li et al., Understanding Neural Networks through Representation Erasure, 2016,
    https://arxiv.org/abs/1612.08220
    """
    return [_left_out(model, text, label) for text, label in zip(texts, labels, strict=True)]


def _left_out(model: Model, text: str, label: int) -> Attribution:
    """Leave out each word of one text. Words beyond the number of tokens that the classifier reads have no influence.

    Each variant is cut there too, so that a very long text does not fill the memory with copies of itself.
    """
    spans, read = words_of(text), model.classifier.max_length
    whole = text if len(spans) <= read + 1 else text[: spans[read][1]]
    changed = [without(whole, spans, [word]) for word in range(min(len(spans), read))]
    odds = model.log_odds([text, *changed], np.full(1 + len(changed), label))
    values = np.zeros(len(spans))
    values[: len(changed)] = odds[0] - odds[1:]
    return Attribution(values, float(odds[0]))
