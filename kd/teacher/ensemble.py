"""Several teachers as one. Each has a cache of its own, so that a further member labels nothing again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import SkipValidation
from scipy.special import log_softmax, logsumexp
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from kd.contract import IGNORED_LABEL
from kd.data.batching import Ragged
from kd.data.sources import Splits
from kd.errors import KDError
from kd.features.feature import Feature
from kd.methods.distillation import Source
from kd.options.declared import CheckedFields
from kd.runtime.devices import ONE_CPU, Devices
from kd.teacher.assistant import Assistant
from kd.teacher.base import AnyTeacher
from kd.teacher.ready import Columns, ReadyTeacher, Wanted, WithoutCaches
from kd.teacher.teacher import Teacher

log = logging.getLogger(__name__)

Combination = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""(logits of K members ``[K, N, C]``, gold labels ``[N]`` or None) -> the combined logits ``[N, C]``.

A row without a gold label has -100; with None, no row has one.
"""


def mean_probability(logits: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Return the log of the members' mean probability: ``log (1/K) sum_k softmax(z_k)``."""
    return _log_mean(logits, np.ones(logits.shape[:2]))


def mean_logits(logits: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Return the mean of the members' logits: a geometric mean of their probabilities."""
    return logits.mean(axis=0)


def confidence(logits: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Return the log of a weighted mean probability: in each row, a member better on the gold label weighs more.

    ``log sum_k w_k softmax(z_k)``, ``w_k = (1 - exp(CE_k) / sum_j exp(CE_j)) / (K - 1)``, where CE_k is the
    cross-entropy of member k with the gold label. Rows without a label, and an ensemble of one member, are computed as
    in `mean_probability`.

    Source: Zhang et al. 2022 (CA-MKD), https://arxiv.org/abs/2201.00007
    """
    if len(logits) == 1:
        return mean_probability(logits)
    labels = np.full(logits.shape[1], IGNORED_LABEL) if labels is None else labels
    known = labels != IGNORED_LABEL
    gold = np.where(known, labels, 0)[None, :, None]
    losses = np.where(known, -np.take_along_axis(log_softmax(logits, axis=2), gold, axis=2)[..., 0], 0.0)
    weights = (1 - np.exp(log_softmax(losses, axis=0))) / (len(logits) - 1)
    return _log_mean(logits, weights)


def correct(logits: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Return the log of the mean probability of the members that predict the gold label; of all where none does."""
    if labels is None:
        return mean_probability(logits)
    right = (logits.argmax(axis=2) == labels) | (labels == IGNORED_LABEL)
    return _log_mean(logits, np.where(right.any(axis=0), right, True).astype(float))


def _log_mean(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ``log sum_k w_k softmax(z_k)``; the weights ``[K, N]`` are normalised first."""
    normalised = (weights / weights.sum(axis=0))[..., None]
    return logsumexp(log_softmax(logits, axis=2), axis=0, b=normalised).astype(np.float32)


COMBINATIONS: dict[str, Combination] = {
    function.__name__: function for function in (mean_probability, mean_logits, confidence, correct)
}


@dataclass(frozen=True)
class Ensemble(CheckedFields, WithoutCaches):
    """Several teachers whose outputs are combined into one.

    The student starts from the tokenizer and the word embeddings of the first member.

    Args:
        members: the teachers by name.
        combine: how the members' logits are combined, a key of `COMBINATIONS`; only for training rows are gold labels
            read.

    Raises:
        KDError: there is no member, or a member is an ensemble.
    """

    members: SkipValidation[Mapping[str, Teacher | Assistant]]
    combine: Literal["mean_probability", "mean_logits", "confidence", "correct"] = "mean_probability"

    has_words = True

    def __post_init__(self) -> None:
        if not self.members:
            raise KDError(
                "teacher=ensemble needs members, got none; add one as in +teacher@teacher.members.NAME=minilm"
            )
        for name, member in self.members.items():
            if isinstance(member, Ensemble) or (isinstance(member, Teacher) and member.seeds > 1):
                raise KDError(
                    f"teacher.members.{name}: expected one model, found several; list them as members instead"
                )
        super().__post_init__()

    @property
    def _first(self) -> Teacher | Assistant:
        return next(iter(self.members.values()))

    @property
    def name_or_path(self) -> str:
        return "+".join(member.name_or_path for member in self.members.values())

    @property
    def max_length(self) -> int:
        return self._first.max_length

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

    def sources(self, chosen: str | None = None) -> dict[str, Teacher | Assistant]:
        """Return the members whose features a student learns from: one by name, "all", or by default the first."""
        if chosen == "all":
            return dict(self.members)
        name = next(iter(self.members)) if chosen is None else chosen
        if name not in self.members:
            raise KDError(f"method.features_from: expected all or one of {', '.join(self.members)}, got '{name}'")
        return {name: self.members[name]}

    def require(self, splits: Splits) -> None:
        """Refuse what a member refuses, before any of them is trained."""
        for member in self.members.values():
            member.require(splits)

    def ready(self, splits: Splits, outputs: Path, on: Devices = ONE_CPU) -> ReadyEnsemble:
        """Return all members, each trained first if no run has done so."""
        self.require(splits)
        ready = {name: member.ready(splits, outputs, on) for name, member in self.members.items()}
        found = [member.facts["validation_accuracy"] for member in ready.values() if member.facts]
        if len(found) > 1:
            log.info(
                "teacher: validation accuracy of %d members %.3f to %.3f, mean %.3f",
                *(len(found), min(found), max(found), float(np.mean(found))),
            )
        return ReadyEnsemble(ready, self.combine)


def of_seeds(teacher: AnyTeacher) -> AnyTeacher:
    """Return an ensemble of a teacher's ``seeds``, whose logits are averaged; any other teacher as it is."""
    if not isinstance(teacher, Teacher) or teacher.seeds == 1:
        return teacher
    seeds = range(teacher.seed, teacher.seed + teacher.seeds)
    return Ensemble({f"seed{seed}": replace(teacher, seed=seed, seeds=1) for seed in seeds}, "mean_logits")


@dataclass(frozen=True)
class ReadyEnsemble(WithoutCaches):
    """Trained teachers whose outputs are combined into one.

    Args:
        by_name: the members.
        combine: a key of `COMBINATIONS`.
    """

    by_name: Mapping[str, ReadyTeacher]
    combine: str

    @property
    def members(self) -> list[ReadyTeacher]:
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

    def cached(self, wanted: Wanted) -> tuple[Columns, float]:
        """Combine the members' logits; add the features of the member that each feature names."""
        logits, seconds = [], 0.0
        columns: Columns = {}
        for name, member in self.by_name.items():
            own = {replace(feature, member=""): feature for feature in wanted.features if feature.member == name}
            found, took = member.cached(replace(wanted, features=own, labels=None))
            logits.append(cast(np.ndarray, found["logits"]))
            columns |= {feature.column: found[plain.column] for plain, feature in own.items()}
            seconds += took
        return {"logits": self._combined(logits, wanted.labels), **columns}, seconds

    def labelled_in(self, texts: Sequence[str], outputs: Path) -> float | None:
        """Return the seconds that all members' logits took; None where the cache lacks some of them."""
        return _sum(member.labelled_in(texts, outputs) for member in self.members)

    def live_logits(self, texts: Sequence[str]) -> np.ndarray:
        return self._combined([member.live_logits(texts) for member in self.members], None)

    def live(self, features: Collection[Feature] = ()) -> Source:
        """Refuse: the members' outputs are combined from the cache."""
        raise KDError("teacher=ensemble gives outputs only from the cache, member by member; set cache.use=true")

    def _combined(self, logits: Sequence[np.ndarray], labels: np.ndarray | None) -> np.ndarray:
        return COMBINATIONS[self.combine](np.stack(logits).astype(np.float64), labels).astype(np.float32)

    def cost(self) -> dict[str, Any]:
        """Add the costs of the members: they run one after the other."""
        costs = [member.cost() for member in self.members]
        return {
            "name": self.name,
            "training_seconds": _sum(cost["training_seconds"] for cost in costs),
            "parameters": {key: sum(cost["parameters"][key] for cost in costs) for key in costs[0]["parameters"]},
            "model_bytes": sum(cost["model_bytes"] for cost in costs),
        }


def _sum(times: Iterable[float | None]) -> float | None:
    """Add times; None where one of them is unknown."""
    known = list(times)
    return None if None in known else sum(filter(None, known))
