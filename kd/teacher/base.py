"""The interfaces of a teacher, before and after its training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from kd.data.batching import Ragged
from kd.data.sources import Splits
from kd.features.feature import Feature
from kd.methods.distillation import Source
from kd.runtime.devices import ONE_CPU, Devices
from kd.teacher.ready import Columns, ReadyTeacher, Wanted


class AnyTeacher(Protocol):
    """A teacher as the configuration describes it, before training: one model, an assistant or an ensemble."""

    @property
    def has_words(self) -> bool:
        """Return whether it has a tokenizer and a word table; a file of answers has those of `words_of`, or none."""

    @property
    def name_or_path(self) -> str:
        """Return its name for logs and reports."""

    @property
    def max_length(self) -> int:
        """Return the number of tokens after which texts are truncated."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer that a student may share."""

    @property
    def config(self) -> PretrainedConfig:
        """Return the model's configuration; training changes neither width nor depth."""

    @property
    def word_table(self) -> torch.Tensor:
        """Return the word embeddings ``[V, d]`` that a student may start from."""

    def tokens(self, texts: Sequence[str]) -> Ragged:
        """Tokenise texts as the teacher reads them."""

    def sources(self, chosen: str | None = None) -> Mapping[str, AnyTeacher]:
        """Return the teachers whose features a student learns from, by their name in the ensemble ("" without one).

        Args:
            chosen: a member's name, "all", or None for the default.

        Raises:
            KDError: there is no such member.
        """

    def require(self, splits: Splits) -> None:
        """Refuse a teacher that does not fit the data, before anything is trained.

        Raises:
            KDError: says what does not fit.
        """

    def ready(self, splits: Splits, outputs: Path, on: Devices = ONE_CPU) -> AnyReadyTeacher:
        """Return the trained teacher; train it first if no run has done so.

        Args:
            splits: the rows of the run.
            outputs: the folder below which trained teachers are stored.
            on: the devices for its training and its outputs.

        Raises:
            KDError: the teacher does not fit the data.
        """


class AnyReadyTeacher(Protocol):
    """A teacher that can give outputs: one model or an ensemble."""

    @property
    def name(self) -> str:
        """Return its name for logs and reports."""

    @property
    def members(self) -> Sequence[ReadyTeacher]:
        """Return the models in it."""

    @property
    def checksum(self) -> str:
        """Return a hash of everything that affects its outputs, except the tokenizer."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return what its training recorded."""

    def cached(self, wanted: Wanted) -> tuple[Columns, float]:
        """Return logits ``[N, C]`` and features from the cache; compute them first if they are missing.

        Returns:
            the columns by name, and the seconds that the logits took when they were computed.

        Raises:
            KDError: more than ``max_gb``, or a value that is not finite in half precision.
        """

    def labelled_in(self, texts: Sequence[str], outputs: Path) -> float | None:
        """Return the seconds that the logits of these texts took; None where the cache lacks them."""

    def live_logits(self, texts: Sequence[str]) -> np.ndarray:
        """Compute logits ``[N, C]`` without the cache."""

    def live(self, features: Collection[Feature] = ()) -> Source:
        """Return the model itself, which is run at every step."""

    def cost(self) -> dict[str, Any]:
        """Return its size and the time of its training."""
