"""Change texts in ways that should change no label, and one that asks whether word order is read. Needs no torch."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from kd.evaluation.measures import Logits, estimate, means, share
from kd.measure.significance import PairedTest, holm
from kd.transfer.base import randomness
from kd.transfer.edits import Edits, replace, wordnet
from kd.transfer.style import Style

LETTERS = re.compile(r"[^\W\d_]{4,}")
"""Words that may get a typo."""
TYPO_SHARE, SYNONYM_SHARE = 0.1, 0.2
MARKS = re.compile(r"(?<!\w)[^\w\s]+|[^\w\s]+(?!\w)")
"""Punctuation outside words, so that "it's" stays."""


def typos(text: str, numbers: random.Random) -> str:
    """Put a typo into a tenth of the words with at least four letters, and into at least one of them.

    A typo swaps two neighbouring letters, leaves one out or doubles one; the first letter stays.
    """
    places = list(LETTERS.finditer(text))
    chosen = numbers.sample(places, max(1, round(TYPO_SHARE * len(places)))) if places else []
    for found in sorted(chosen, key=lambda one: -one.start()):  # from the end, so that the places stay right
        word, place = found[0], numbers.randrange(1, len(found[0]) - 1)
        made = {
            "swap": word[:place] + word[place + 1] + word[place] + word[place + 2 :],
            "drop": word[:place] + word[place + 1 :],
            "double": word[: place + 1] + word[place:],
        }[numbers.choice(("swap", "drop", "double"))]
        text = text[: found.start()] + made + text[found.end() :]
    return text


def shuffled(text: str, style: Style, numbers: random.Random) -> str:
    """Put the words and marks of a text in a random order."""
    tokens = style.tokens(text)
    numbers.shuffle(tokens)
    return style.joined(tokens)


def changes(style: Style, synonyms: Path | None) -> dict[str, Callable[[str, random.Random], str]]:
    """Return the changes by name.

    Args:
        style: how the texts are written.
        synonyms: WordNet's folder; None leaves out the change with synonyms.

    Raises:
        KDError: the folder is not WordNet's.
    """
    found: dict[str, Callable[[str, random.Random], str]] = {
        "typos": typos,
        "upper case": lambda text, _: text.upper(),
        "lower case": lambda text, _: text.lower(),
        "no punctuation": lambda text, _: " ".join(MARKS.sub(" ", text).split()),
        "word order shuffled": lambda text, numbers: shuffled(text, style, numbers),
    }
    if synonyms:
        known, edits = wordnet(synonyms), Edits(share=SYNONYM_SHARE)
        found["synonyms"] = lambda text, numbers: style.joined(
            edits.edited(style.tokens(text), replace, known, numbers)
        )
    return found


def robustness(
    texts: Sequence[str],
    labels: np.ndarray,
    unchanged: np.ndarray,
    logits: Logits,
    synonyms: Path | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure a classifier on changed texts; the intervals of the differences are at Holm's levels over all changes.

    Args:
        texts: unchanged.
        labels: ``[N]``, gold.
        unchanged: ``[N, C]``, its logits for the unchanged texts.
        logits: the classifier.
        synonyms: WordNet's folder.
        seed: of the random changes.
    """
    found, tests = [], []
    before, rows = unchanged.argmax(axis=1), np.arange(len(labels))
    sure = softmax(unchanged.astype(float), axis=1)[rows, before]
    for name, change in changes(Style.of(texts), synonyms).items():
        numbers = randomness(seed, "robustness", name)
        made = [change(text, numbers) or text for text in texts]  # a text of marks alone stays
        given = logits(made)
        after, moved = given.argmax(axis=1), np.abs(softmax(given.astype(float), axis=1)[rows, before] - sure)
        tests.append(PairedTest.of(after == labels, before == labels))
        changed = float(np.mean([one != other for one, other in zip(made, texts, strict=True)]))
        found.append(
            {"name": name, "changed": changed, "accuracy": float(np.mean(after == labels))}
            | {"flipped": share(after != before), **means({"moved": moved}, high=1.0)}
        )
    adjusted, levels = holm([test.p_value for test in tests])
    for one, test, p_value, level in zip(found, tests, adjusted, levels, strict=True):
        difference = estimate(test.total / test.rows, test.interval(float(level)))
        one |= {"difference": difference, "p_value": float(p_value)}
    return found
