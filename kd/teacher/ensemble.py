"""Several teachers as one: each answers from its own cache, so that a further one re-labels nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from kd.contract import IGNORED_LABEL
from kd.data.batching import Ragged
from kd.data.sources import Splits
from kd.errors import KDError
from kd.features.feature import Feature
from kd.runtime.devices import ONE_CPU, Devices
from kd.teacher.base import WithoutCaches
from kd.teacher.ready import ReadyTeacher
from kd.teacher.teacher import Teacher


def mean_probability(logits: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Log of the members' mean probability.

    ``log (1/K) sum_k softmax(z_k)``

    Args:
        logits: ``[K, N, C]``.
        labels: not read.

    Returns:
        ``[N, C]``, log-probabilities.
    """
    return _log_mean(logits, np.ones(logits.shape[:2]))


def mean_logits(logits: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """The mean of the members' logits: a geometric mean of their probabilities.

    Args:
        logits: ``[K, N, C]``.
        labels: not read.

    Returns:
        ``[N, C]``.
    """
    return logits.mean(axis=0)


def confidence(logits: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Log of the mean probability, each member counting row by row by how well it knows the gold label.

    ``log sum_k w_k softmax(z_k)``, ``w_k = (1 - exp(CE_k) / sum_j exp(CE_j)) / (K - 1)``, CE_k the cross-entropy of
    member k with the gold label. Rows without a label, and one member alone, count as in `mean_probability`.

    Args:
        logits: ``[K, N, C]``.
        labels: ``[N]``, -100 where there is none; None: no row has one.

    Returns:
        ``[N, C]``, log-probabilities.

    Source: Zhang et al. 2022 (CA-MKD), https://arxiv.org/abs/2201.00007
    """
    if len(logits) == 1:
        return mean_probability(logits)
    losses = -_gold(log_softmax(logits, axis=2), labels)
    weights = (1 - np.exp(log_softmax(losses, axis=0))) / (len(logits) - 1)
    return _log_mean(logits, weights)


def correct(logits: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Log of the mean probability of the members that are right on the gold label; of all where none is.

    Args:
        logits: ``[K, N, C]``.
        labels: ``[N]``, -100 where there is none; None: no row has one.

    Returns:
        ``[N, C]``, log-probabilities.
    """
    if labels is None:
        return mean_probability(logits)
    right = (logits.argmax(axis=2) == labels) | (labels == IGNORED_LABEL)
    return _log_mean(logits, np.where(right.any(axis=0), right, True).astype(float))


COMBINATIONS: dict[str, Callable[[np.ndarray, np.ndarray | None], np.ndarray]] = {
    "mean_probability": mean_probability,
    "mean_logits": mean_logits,
    "confidence": confidence,
    "correct": correct,
}


def _gold(values: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """``[K, N, C]`` -> the entries of the gold labels ``[K, N]``; 0 where there is no label."""
    if labels is None:
        return np.zeros(values.shape[:2])
    known = labels != IGNORED_LABEL
    picked = np.take_along_axis(values, np.where(known, labels, 0)[None, :, None], axis=2)[..., 0]
    return np.where(known, picked, 0.0)


def _log_mean(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``log sum_k w_k softmax(z_k)`` from weights ``[K, N]`` of any sum."""
    shares = (weights / weights.sum(axis=0))[..., None]
    return logsumexp(log_softmax(logits, axis=2), axis=0, b=shares).astype(np.float32)


@dataclass(frozen=True)
class Ensemble(WithoutCaches):
    """Teachers by name that answer as one.

    The first is the one whose tokenizer and word table the student starts from.

    Args:
        members: the teachers.
        combine: a key of `COMBINATIONS`; what reads gold labels reads those of the training rows alone.

    Raises:
        KDError: no member, or an unknown way to combine.
    """

    members: Mapping[str, Teacher]
    combine: str = "mean_probability"

    def __post_init__(self):
        if not self.members:
            raise KDError(
                "teacher=ensemble needs members, got none; add one as in +teacher@teacher.members.NAME=minilm"
            )
        if self.combine not in COMBINATIONS:
            raise KDError(f"teacher.combine: expected one of {', '.join(COMBINATIONS)}, got '{self.combine}'")

    @property
    def _first(self) -> Teacher:
        return next(iter(self.members.values()))

    @property
    def name_or_path(self) -> str:
        return "+".join(member.name_or_path for member in self.members.values())

    @property
    def max_length(self) -> int:
        return self._first.max_length

    @property
    def fine_tune(self) -> bool:
        """Whether none is taken as it is."""
        return all(member.fine_tune for member in self.members.values())

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._first.tokenizer

    @property
    def config(self) -> PretrainedConfig:
        return self._first.config

    @property
    def word_table(self) -> torch.Tensor:
        return self._first.word_table

    def tokens(self, texts: Sequence[str]) -> Ragged:
        return self._first.tokens(texts)

    def sources(self, chosen: str | None = None) -> dict[str, Teacher]:
        """The members whose features are asked for: one by name, "all", or by default the first."""
        if chosen == "all":
            return dict(self.members)
        name = next(iter(self.members)) if chosen is None else chosen
        if name not in self.members:
            raise KDError(f"method.features_from: expected all or one of {', '.join(self.members)}, got '{name}'")
        return {name: self.members[name]}

    def ready(self, splits: Splits, outputs: Path, on: Devices = ONE_CPU) -> ReadyEnsemble:
        """All members, each fine-tuned if it has to be."""
        ready = {name: member.ready(splits, outputs, on) for name, member in self.members.items()}
        return ReadyEnsemble(ready, self.combine)


@dataclass(frozen=True)
class ReadyEnsemble(WithoutCaches):
    """Teachers that can answer, as one that can.

    Args:
        by_name: the members.
        combine: a key of `COMBINATIONS`.
    """

    by_name: Mapping[str, ReadyTeacher]
    combine: str

    @property
    def members(self) -> list[ReadyTeacher]:
        """The single teachers in it."""
        return list(self.by_name.values())

    @property
    def name(self) -> str:
        return "+".join(member.name for member in self.members)

    @cached_property
    def checksum(self) -> str:
        parts = [self.combine, *(member.checksum for member in self.members)]
        return sha256("\n".join(parts).encode()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        return {"combine": self.combine, "members": {name: member.facts for name, member in self.by_name.items()}}

    def cached(
        self,
        texts: Sequence[str],
        split: str,
        outputs: Path,
        features: Collection[Feature] = (),
        max_gb: float = math.inf,
        labels: np.ndarray | None = None,
    ) -> tuple[dict[str, np.ndarray | Ragged], float]:
        """As of one teacher; a feature's column is of the member that it names."""
        logits, columns, seconds = [], {}, 0.0
        for name, member in self.by_name.items():
            own = {replace(feature, member=""): feature for feature in features if feature.member == name}
            found, took = member.cached(texts, split, outputs, own, max_gb)
            logits.append(found["logits"])
            columns |= {feature.column: found[plain.column] for plain, feature in own.items()}
            seconds += took
        return {"logits": self._combined(logits, labels), **columns}, seconds

    def labelled_in(self, texts: Sequence[str], outputs: Path) -> float | None:
        """The seconds that all members' logits for these texts took; None where some are not in the cache."""
        times = [member.labelled_in(texts, outputs) for member in self.members]
        return None if None in times else sum(times)

    def live_logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits ``[N, C]`` computed now and not kept."""
        return self._combined([member.live_logits(texts) for member in self.members], None)

    def live(self, features: Collection[Feature] = ()) -> Callable:
        """Refused: members are kept one by one."""
        raise KDError("teacher=ensemble answers from the cache, where its members stand one by one; set cache.use=true")

    def _combined(self, logits: Sequence[np.ndarray], labels: np.ndarray | None) -> np.ndarray:
        return COMBINATIONS[self.combine](np.stack(logits).astype(np.float64), labels).astype(np.float32)

    def cost(self, texts: Sequence[str]) -> dict[str, Any]:
        """The members' together, asked one after the other."""
        costs = [member.cost(texts) for member in self.members]
        times = [cost["training_seconds"] for cost in costs]
        threads = costs[0]["latency"]["threads"]
        return {
            "name": self.name,
            "training_seconds": None if None in times else sum(times),
            "parameters": {key: sum(cost["parameters"][key] for cost in costs) for key in costs[0]["parameters"]},
            "model_bytes": sum(cost["model_bytes"] for cost in costs),
            "latency": {
                **{key: sum(cost["latency"][key] for cost in costs) for key in ("p50_ms", "p95_ms")},
                "threads": threads,
            },
        }
