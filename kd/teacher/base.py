"""The two interfaces of every teacher, before and after training, and what all teachers of one model share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from kd.data.batching import EncodedSplit, Ragged, in_slices, labels_of
from kd.data.module import TextDataModule
from kd.data.sources import Splits
from kd.errors import KDError
from kd.features.feature import Feature
from kd.losses.label import LabelLoss
from kd.methods.base import Method
from kd.methods.distillation import Source
from kd.methods.learning_rate import warm_up_and_decay
from kd.options.declared import Count
from kd.runtime.devices import ONE_CPU, Devices
from kd.storage.checksum import digest
from kd.teacher.cache import texts_hash
from kd.teacher.fine_tuning import Recipe, Trainee
from kd.teacher.ready import ReadyTeacher, WithoutCaches


class AnyTeacher(Protocol):
    """A teacher as the configuration describes it, before training: one model, an assistant or an ensemble."""

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

    def cached(
        self,
        texts: Sequence[str],
        split: str,
        outputs: Path,
        features: Collection[Feature] = (),
        max_gb: float = ...,
        labels: np.ndarray | None = None,
    ) -> tuple[dict[str, np.ndarray | Ragged], float]:
        """Return logits ``[N, C]`` and features from the cache; compute them first if they are missing.

        Args:
            texts: N of them.
            split: the name of these texts in the log.
            outputs: the folder that contains the cache.
            features: stored in half precision.
            max_gb: refuse to store more than this, in 10^9 bytes.
            labels: gold labels ``[N]`` of training rows; only an ensemble reads them.

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

    def cost(self, texts: Sequence[str]) -> dict[str, Any]:
        """Measure size and latency on these texts."""


FORMAT = 1
"""Part of the hash of every trained teacher: a new number makes all of them train again."""
RECIPE = tuple(field.name for field in fields(Recipe))


@dataclass(frozen=True, kw_only=True)
class SingleTeacher(WithoutCaches, Recipe, ABC):
    """A teacher of one model, which is trained once and stored under a hash of everything that affects its weights.

    Args:
        labelling_batch_size: rows of a batch when the trained model only gives outputs.
    """

    labelling_batch_size: Count

    recipe_names: ClassVar[tuple[str, ...]] = RECIPE
    """The options that affect the weights."""

    @property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @abstractmethod
    def tokens(self, texts: Sequence[str]) -> Ragged: ...

    def sources(self, chosen: str | None = None) -> dict[str, Self]:
        if chosen not in (None, "all"):
            raise KDError(
                f"method.features_from={chosen} names a member of an ensemble, and there is one teacher; leave it null"
            )
        return {"": self}

    def _recipe(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.recipe_names}

    def _hash(self, train: Dataset, label_names: Sequence[str], **facts: Any) -> str:
        """Return the name of the trained model: a hash of the recipe, the training rows and further facts."""
        labels = hashlib.sha256(labels_of(train).tobytes()).hexdigest()
        rows = {"texts": texts_hash(in_slices(train["text"])), "labels": labels, "label_names": label_names}
        return digest({"format": FORMAT, **rows, **self._recipe(), **facts})[:20]

    def _encoded(self, split: Dataset) -> EncodedSplit:
        return EncodedSplit(self.tokens(split["text"]), labels_of(split), self.tokenizer.pad_token_id)

    def _trainee_of(
        self,
        method: Callable[..., Method],
        model: PreTrainedModel,
        train: EncodedSplit,
        validation: Dataset,
        batch_size: int,
        name: str,
    ) -> Trainee:
        """Return the model with its method, optimizer and rows, ready to train."""
        data = TextDataModule(train, self._encoded(validation), batch_size, self.seed)
        optimizer = partial(torch.optim.AdamW, lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = partial(warm_up_and_decay, decay="linear", warm_up=self.warm_up)
        facts = {"name": name, "rows": len(train), **self._recipe()}
        return Trainee(method(model, LabelLoss(), optimizer, schedule, seed=self.seed), data, self.tokenizer, facts)
