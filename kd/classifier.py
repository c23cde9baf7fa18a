"""What classifies texts: the student of a run, a Hugging Face folder, or an export. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
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
        raise KDError(
            f"expected the labels {', '.join(wanted)} in {place}, found {', '.join(found)}; choose a model of the same "
            "task, or rename its labels"
        )
    return [found.index(name) for name in wanted]


def load(path: Path) -> Classifier:
    """Load an export without torch, or a run directory or a Hugging Face folder with it.

    Raises:
        KDError: the path is none of them, or its files are incomplete or damaged.
    """
    if not path.exists():
        raise KDError(f"expected a run, a Hugging Face folder or an export in '{path}', found nothing; check the path")
    if folder.is_export(path):
        return classifier.load(path)
    try:
        from kd.predictor import Predictor
    except ImportError as error:
        raise KDError(
            f"'{path}' is no export, and other models need {error.name}; install kd with its packages"
        ) from error
    return Predictor.load(path)
