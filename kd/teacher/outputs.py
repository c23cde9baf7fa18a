"""What a run reads of its teacher: logits and features for whole splits, from the cache or live, and what it cost."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from kd.data.batching import EncodedSplit, Ragged, in_slices, labels_of
from kd.errors import KDError
from kd.features.feature import Feature
from kd.methods.distillation import cached_teacher
from kd.run.environment import processor
from kd.storage.files import read_json, write_json
from kd.teacher import cache as teacher_cache
from kd.teacher.ready import ReadyTeacher

log = logging.getLogger(__name__)


@dataclass
class Answers:
    """The teacher's logits and features for whole splits, from the cache or live, and the time that labelling took.

    Args:
        teacher: None for a run without one.
        outputs: where the cache lives.
        cache: read from it; False asks the live model.
        max_gb: see `ReadyTeacher.cached`.
    """

    teacher: ReadyTeacher | None
    outputs: Path
    cache: bool
    max_gb: float = math.inf
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, split: Dataset, name: str) -> np.ndarray | None:
        """Logits ``[N, C]`` for every row of a split; None without a teacher."""
        if self.teacher is None:
            return None
        if not self.cache:
            return self.teacher.live_logits(split["text"])
        return self._columns(split, name)["logits"]

    def attached_to(
        self, encoded: EncodedSplit, split: Dataset, name: str, features: Collection[Feature] = ()
    ) -> EncodedSplit:
        """A split with what the teacher's side needs: its outputs, or the tokens that a live teacher reads."""
        if self.cache:
            return _beside(encoded, self._columns(split, name, features))
        return self.with_tokens(encoded, split)

    def with_features(
        self, encoded: EncodedSplit, split: Dataset, name: str, features: Collection[Feature]
    ) -> EncodedSplit:
        """A split with features from the cache and no logits, for a teacher whose head will move."""
        found, self.seconds[name] = self.teacher.cached_features(
            split["text"], name, self.outputs, features, self.max_gb
        )
        return _beside(encoded, found)

    def with_tokens(self, encoded: EncodedSplit, split: Dataset) -> EncodedSplit:
        """A split with the tokens that a live teacher reads."""
        tokens = self.teacher.tokens(split["text"])
        return replace(encoded, teacher_tokens=tokens, teacher_padding=self.teacher.tokenizer.pad_token_id)

    def cost(self, texts: Sequence[str]) -> dict[str, Any]:
        """What the teacher takes, measured once for these texts on this machine with so many threads."""
        facts = {
            "teachers": [[member.checksum, member.max_length] for member in self.teacher.members],
            "texts": teacher_cache.texts_hash(in_slices(texts)),
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
        place = Path(self.outputs) / "teacher_cost" / f"{digest}.json"
        if place.is_file():
            try:
                return read_json(place)["cost"]
            except (KDError, KeyError):
                log.warning("the teacher's cost in %s is damaged: it is measured anew", place)
        cost = self.teacher.cost(texts)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, {**facts, "cost": cost})
        return cost

    def source(self, features: Collection[Feature] = ()) -> Callable:
        """The teacher that a method asks."""
        return cached_teacher if self.cache else self.teacher.live(features)

    def _columns(self, split: Dataset, name: str, features: Collection[Feature] = ()) -> dict[str, np.ndarray | Ragged]:
        labels = labels_of(split) if name == "train" else None  # what is measured must not be known
        columns, self.seconds[name] = self.teacher.cached(
            split["text"], name, self.outputs, features, self.max_gb, labels
        )
        return columns


def _beside(encoded: EncodedSplit, found: Mapping[str, np.ndarray | Ragged]) -> EncodedSplit:
    """A split with a teacher's columns beside its own."""
    columns = {f"teacher_{column}": values for column, values in found.items()}
    return replace(encoded, columns={**encoded.columns, **columns})
