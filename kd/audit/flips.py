"""Count the texts whose label changes when words for women and words for men are exchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kd.measure.significance import PairedTest, accuracy_interval
from kd.transfer.counterfactual import swapped

EXAMPLES = 10
Probabilities = Callable[[Sequence[str]], np.ndarray]
"""Returns the probabilities ``[N, C]`` of texts."""


def flips(
    source: str, texts: Sequence[str], models: Mapping[str, Probabilities], label_names: Sequence[str]
) -> dict[str, Any] | None:
    """Return the content of `kd.storage.audit_record.Flips`; None where no text has such a word.

    The student's flips are compared with those of each other model, on the same texts, by McNemar's exact test.

    Args:
        source: the name of the texts.
        texts: real ones.
        models: the first is the student, whose largest changes are the examples.
        label_names: the order of the labels.
    """
    pairs = [(text, new) for text, new in ((text, swapped(text)) for text in texts) if new != text]
    if not pairs:
        return None
    shares: dict[str, dict[str, float | None]] = {}
    examples: list[list[str]] = []
    of_student: np.ndarray | None = None
    for name, model in models.items():
        before, after = (model(list(side)) for side in zip(*pairs, strict=True))
        old, new = before.argmax(axis=1), after.argmax(axis=1)
        low, high = accuracy_interval(flipped := old != new)
        p_value = None if of_student is None else PairedTest.of(of_student, flipped).p_value
        shares[name] = {"share": float(flipped.mean()), "low": low, "high": high, "p": p_value}
        if of_student is None:
            of_student = flipped
            largest = np.argsort(-np.abs(before - after).max(axis=1), kind="stable")
            changed = [int(row) for row in largest if old[row] != new[row]][:EXAMPLES]
            examples = [[*pairs[row], label_names[old[row]], label_names[new[row]]] for row in changed]
    return {"source": source, "texts": len(texts), "pairs": len(pairs), "shares": shares, "examples": examples}
