"""What each word of a text adds to the log-odds of a label, by leaving it out. Needs no torch.

N texts, W words of a text, C labels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from tokenizers import Regex, pre_tokenizers

from kd.classifier import Classifier
from kd.errors import KDError

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
        if sorted(self.classifier.label_names) != sorted(self.label_names):
            raise KDError(
                f"expected the student's labels {', '.join(self.label_names)} in the {self.name}, found "
                f"{', '.join(self.classifier.label_names)}; give a model of the same task, or rename its labels"
            )

    @property
    def order(self) -> list[int]:
        """Return the place of each label in the classifier's own logits."""
        return [self.classifier.label_names.index(name) for name in self.label_names]

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return ``[N, C]``, in the order of ``label_names``."""
        return self.classifier.logits(texts, self.batch_size)[:, self.order]

    def log_odds(self, texts: Sequence[str], labels: np.ndarray) -> np.ndarray:
        """Return ``[N]``: the log-odds of a label of each text, which is ``log(p / (1 - p))``."""
        logits = self.logits(texts).astype(np.float64)
        own = labels[:, None] == np.arange(logits.shape[1])
        return logits[own] - logsumexp(np.where(own, -np.inf, logits), axis=1)


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
    spans = [words_of(text) for text in texts]
    changed = [without(text, own, [word]) for text, own in zip(texts, spans, strict=True) for word in range(len(own))]
    counts = [len(own) for own in spans]
    odds = model.log_odds([*texts, *changed], np.concatenate([labels, np.repeat(labels, counts)]))
    whole, parts = odds[: len(texts)], np.split(odds[len(texts) :], np.cumsum(counts)[:-1])
    return [Attribution(own - part, float(own)) for own, part in zip(whole, parts, strict=True)]
