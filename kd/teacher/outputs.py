"""Logits and features of the teacher for whole splits, from the cache or live, and what they cost."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from datasets import Dataset

from kd.data.batching import EncodedSplit, labels_of
from kd.features.feature import Feature
from kd.methods.distillation import Source, cached_teacher
from kd.teacher.base import AnyReadyTeacher
from kd.teacher.ready import Columns, ReadyTeacher, Wanted

log = logging.getLogger(__name__)


@dataclass
class TeacherOutputs:
    """The teacher's logits and features for whole splits, from the cache or live, and the time that labelling took.

    Args:
        teacher: None for a run without one.
        outputs: the folder that contains the cache.
        cache: true reads the cache; false runs the live model.
        max_gb: see `AnyReadyTeacher.cached`.
        seconds: of labelling, by split; filled while splits are read.
    """

    teacher: AnyReadyTeacher | None
    outputs: Path
    cache: bool
    max_gb: float = math.inf
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ready(self) -> AnyReadyTeacher:
        """Return the teacher of a run that has one."""
        if self.teacher is None:
            raise RuntimeError("expected a run with a teacher, found teacher=none")
        return self.teacher

    @property
    def members(self) -> Sequence[ReadyTeacher]:
        """Return the models of the teacher; none for a run without one."""
        return () if self.teacher is None else self.teacher.members

    @property
    def single(self) -> ReadyTeacher:
        """Return the teacher of a run whose teacher is one model."""
        (teacher,) = self.ready.members
        return teacher

    def logits(self, split: Dataset, name: str) -> np.ndarray:
        """Return logits ``[N, C]`` for every row of a split."""
        if not self.cache:
            return self.ready.live_logits(split["text"])
        return cast(np.ndarray, self._columns(split, name)["logits"])

    def attached_to(
        self, encoded: EncodedSplit, split: Dataset, name: str, features: Collection[Feature] = ()
    ) -> EncodedSplit:
        """Return a split with the teacher's outputs, or with the tokens that a live teacher reads."""
        if self.cache:
            return _beside(encoded, self._columns(split, name, features))
        return self.with_tokens(encoded, split)

    def with_features(
        self, encoded: EncodedSplit, split: Dataset, name: str, features: Collection[Feature]
    ) -> EncodedSplit:
        """Return a split with features from the cache, but no logits: for a teacher whose head is trained further."""
        wanted = Wanted(split["text"], name, self.outputs, features, self.max_gb, with_logits=False)
        found, self.seconds[name] = self.single.cached(wanted)
        return _beside(encoded, found)

    def with_tokens(self, encoded: EncodedSplit, split: Dataset) -> EncodedSplit:
        """Return a split with the tokens that a live teacher reads."""
        tokens, padding = self.single.tokens(split["text"]), self.single.tokenizer.pad_token_id
        return replace(encoded, teacher_tokens=tokens, teacher_padding=padding)

    def source(self, features: Collection[Feature] = ()) -> Source:
        """Return the function from which a method gets the teacher's outputs for a batch."""
        return cached_teacher if self.cache else self.ready.live(features)

    def _columns(self, split: Dataset, name: str, features: Collection[Feature] = ()) -> Columns:
        labels = labels_of(split) if name == "train" else None  # outputs for measured splits must not use gold labels
        wanted = Wanted(split["text"], name, self.outputs, features, self.max_gb, labels)
        columns, self.seconds[name] = self.ready.cached(wanted)
        return columns


def _beside(encoded: EncodedSplit, found: Columns) -> EncodedSplit:
    """Return a split with the teacher's columns beside its own."""
    columns = {f"teacher_{column}": values for column, values in found.items()}
    return replace(encoded, columns={**encoded.columns, **columns})
