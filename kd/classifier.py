"""What classifies texts: the student of a run, a Hugging Face folder, or an export. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from kd.errors import KDError
from kd.export import classifier, folder


class Classifier(Protocol):
    """A classifier with its tokenizer."""

    @property
    def label_names(self) -> list[str]:
        """Return the labels in the order of the logits."""

    @property
    def max_length(self) -> int:
        """Return the number of tokens to which a text is truncated."""

    @property
    def text_column(self) -> str:
        """Return the name of the column of the texts in training."""

    def logits(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return logits ``[N, C]``, float32, row i for text i."""

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return probabilities ``[N, C]``; each row sums to 1."""


@runtime_checkable
class Staged(Classifier, Protocol):
    """A classifier of several, each of which answers some texts: a cascade."""

    @property
    def stages(self) -> list[str]:
        """Return the names of those that can answer a text."""

    def answers(self, texts: Sequence[str], batch_size: int = 64) -> tuple[np.ndarray, list[str]]:
        """Return probabilities ``[N, C]``, and the name of who answered each text, as in `stages`."""


class TeacherFailed(KDError):
    """The teacher of a cascade cannot answer the texts that are left to it."""


def label_order(found: Sequence[str], wanted: Sequence[str], place: str) -> list[int]:
    """Return for each label that is wanted its number among those of a classifier.

    Raises:
        KDError: it has other labels; the sentence names the ``place``.
    """
    if sorted(found) != sorted(wanted):
        advice = "choose a model of the same task, or rename its labels"
        if unnamed(found):
            advice = "name them in id2label of its config.json, or with --label-names where the command has it"
        raise KDError(f"expected the labels {', '.join(wanted)} in {place}, found {', '.join(found)}; {advice}")
    return [found.index(name) for name in wanted]


def unnamed(names: Sequence[str]) -> bool:
    """Return whether labels have only the numbers that transformers gives them."""
    return list(names) == [f"LABEL_{number}" for number in range(len(names))]


def logits_of(
    classifier: Classifier, place: str, names: Sequence[str], batch_size: int
) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function that gives a classifier's logits ``[N, C]`` in the order of these labels.

    Raises:
        KDError: it has other labels.
    """
    order = label_order(classifier.label_names, names, place)
    return lambda texts: classifier.logits(texts, batch_size)[:, order]


def load(path: Path, label_names: Sequence[str] | None = None) -> Classifier:
    """Load an export without torch, or a run directory or a Hugging Face folder with it.

    Args:
        path: of the model.
        label_names: names of its labels, in the order of its logits; None: its own.

    Raises:
        KDError: the path is none of them, its files are incomplete or damaged, or it has another number of labels.
    """
    if not path.exists():
        raise KDError(f"expected a run, a Hugging Face folder or an export in '{path}', found nothing; check the path")
    if folder.is_export(path):
        exported = classifier.load(path)
        exported.label_names = _names(exported.label_names, label_names)
        return exported
    try:
        from kd.predictor import Predictor
    except ImportError as error:
        raise KDError(
            f"'{path}' is no export, and other models need {error.name}; install kd with its packages"
        ) from error
    found = Predictor.load(path)
    found.model.config.id2label = dict(enumerate(_names(found.label_names, label_names)))
    return found


def _names(own: list[str], given: Sequence[str] | None) -> list[str]:
    if given is None:
        return own
    if len(set(given)) != len(own) or len(given) != len(own):
        raise KDError(
            f"--label-names: expected {len(own)} different names, in the order of {', '.join(own)}, got "
            f"{', '.join(given)}; give one for each"
        )
    return list(given)
