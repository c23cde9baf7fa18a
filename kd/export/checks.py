"""Compare an export with the model that it was made from, on real texts and on odd ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kd.errors import KDError
from kd.export.classifier import softmax

Logits = Callable[[Sequence[str], int], np.ndarray]
"""Gives the logits ``[N, C]`` of texts, with a number of texts at a time."""

MOST_FLIPS = 0.005
"""Share of texts whose label may change."""
ALONE = 32
"""Texts that are classified alone too."""
MOST_ALONE = 0.1
"""Share of them whose label may change: a quantised model scales the activations of a batch together."""
MOST_ODD = 0.1
"""Largest difference of a probability of a text in `ODD`. They have no label, so their flips say little."""
BATCH = 64
ODD = ["", " ", "a", "zzqxv qqqq 数据 👍🏽", "word " * 5000]
"""An empty text, a blank one, a short one, one of unknown words, and one longer than any model reads."""


class Rows(NamedTuple):
    """Real texts, with what is known about them.

    Args:
        texts: N texts.
        labels: ``[N]``, gold, -100 for a text without one; or None.
        teacher: ``[N]``, the labels that the teacher gives, -100 for a text without one; or None.
    """

    texts: list[str]
    labels: np.ndarray | None = None
    teacher: np.ndarray | None = None


def compare(before: Logits, after: Logits, rows: Rows) -> dict[str, float]:
    """Compare two forms of a model.

    Returns:
        ``texts``, ``largest_difference`` of a probability, the same of the texts in `ODD`, ``flips`` (texts whose label
        changes), ``flips_alone`` (share of `ALONE` texts that get another label alone than in a batch), and, where
        labels are known, ``accuracy_before``, ``accuracy_after``, ``agreement_before`` and ``agreement_after``.
    """
    old, new = before(rows.texts, BATCH), after(rows.texts, BATCH)
    alone = np.concatenate([after([text], 1) for text in rows.texts[:ALONE]])
    odd_old, odd_new = before(ODD, len(ODD)), after(ODD, len(ODD))
    found = {
        "texts": len(old),
        "largest_difference": float(np.abs(softmax(old) - softmax(new)).max()),
        "largest_difference_of_odd_texts": float(np.abs(softmax(odd_old) - softmax(odd_new)).max()),
        "flips": int((old.argmax(1) != new.argmax(1)).sum()),
        "flips_alone": float((alone.argmax(1) != new[: len(alone)].argmax(1)).mean()),
    }
    for name, truth in (("accuracy", rows.labels), ("agreement", rows.teacher)):
        known = None if truth is None else truth >= 0
        if truth is not None and known is not None and known.any():
            for when, logits in (("before", old), ("after", new)):
                found[f"{name}_{when}"] = float((logits.argmax(1) == truth)[known].mean())
    return found


def require_few_flips(found: dict[str, float], kind: str) -> None:
    """Refuse an export that changes too many labels.

    Raises:
        KDError: more than `MOST_FLIPS` of the labels change, more than `MOST_ALONE` depend on the batch, or a text in
            `ODD` gets a probability that differs by more than `MOST_ODD`.
    """
    if found["flips_alone"] > MOST_ALONE:
        raise KDError(
            f"--to {kind}: expected the same label for a text alone and in a batch, found others for "
            f"{found['flips_alone']:.0%} of the texts; use another kind, or keep it with --force"
        )
    if not found["largest_difference_of_odd_texts"] <= MOST_ODD:  # NaN is refused too
        raise KDError(
            f"--to {kind}: expected the probabilities of an empty, a long and an unknown text to change by at most "
            f"{MOST_ODD}, found {found['largest_difference_of_odd_texts']:.2f}; use another kind, or keep it with "
            "--force"
        )
    if found["flips"] > MOST_FLIPS * found["texts"]:
        raise KDError(
            f"--to {kind}: expected at most {MOST_FLIPS:.1%} of the labels to change, found {found['flips']:.0f} of "
            f"{found['texts']:.0f} texts; use another kind, or keep it with --force"
        )
