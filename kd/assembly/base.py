"""The parts of a run before it trains, for all methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.assembly import counterparts
from kd.assembly.start import start
from kd.config import build
from kd.config.make import once
from kd.data.batching import EncodedSplit, in_slices
from kd.data.sources import Splits
from kd.data.streaming import StreamedSplit
from kd.features.feature import Feature
from kd.measure.cost import Reader
from kd.methods.base import Method
from kd.methods.objective import Objective
from kd.runtime.devices import Devices
from kd.teacher.base import AnyReadyTeacher, AnyTeacher
from kd.teacher.fine_tuning import row_hashes
from kd.teacher.label_order import check_members
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.ready import require_room
from kd.teacher.transfer_set import Transfer


class Assembly(ABC):
    """A run before it trains. Its constructor refuses mistakes, before the teacher (None: no teacher) is fine-tuned."""

    def __init__(self, config: DictConfig, splits: Splits, teacher: AnyTeacher | None):
        self.config, self.splits, self.teacher = config, splits, teacher
        self.options = build.method_options(config)

    def rows(self, name: str) -> Dataset:
        """Return the rows of a split that the student reads."""
        return getattr(self.splits, name)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the student's tokenizer. It is trained on all rows, so that a baseline has the same vocabulary."""
        texts = in_slices(self.splits.train["text"])
        if self.transfer is not None:
            texts = chain(texts, self.transfer.sample())
        return build.tokenizer(self.config, texts, self.teacher)

    @cached_property
    def transfer(self) -> Transfer | None:
        """Return the streamed transfer set; None where all rows are in the training split."""
        return Transfer.of(self.config, self.splits) if self.config.data.get("stream") else None

    @cached_property
    def student(self) -> PreTrainedModel:
        """Return the student before training."""
        return build.student(self.config, self.tokenizer, self.splits.label_names, self.teacher)

    def learners(self) -> dict[PreTrainedModel, int]:
        """Return the models that this run has made of ``student`` or ``peers``, each with its seed."""
        return {self.student: self.config.seed}

    def start(self) -> None:
        """Set the initial weights that come from the trained teacher; call it before the training."""
        for model, seed in self.learners().items():
            start(model, self.config, seed, self.tokenizer, self.teacher, lambda: self.outputs)

    @cached_property
    def objective(self) -> Objective:
        """Return the terms of the student's loss, for a method with a second model."""
        return build.objective(self.config, len(self.splits.label_names))

    @cached_property
    def outputs(self) -> TeacherOutputs:
        """Return the teacher's outputs. The first use fine-tunes the teacher, if no run has done so.

        Raises:
            KDError: a teacher that kd did not train has its labels in another order.
        """
        config = self.config
        ready = self._ready(self.teacher) if self.teacher else None
        outputs = TeacherOutputs(ready, Path(config.outputs), config.cache.use, config.cache.max_gb)
        if ready is not None:
            check_members(ready, outputs, self.splits)
        return outputs

    def _ready(self, teacher: AnyTeacher) -> AnyReadyTeacher:
        """Return the teacher after its fine-tuning."""
        return teacher.ready(self.splits, Path(self.config.outputs), Devices.of(self.config))

    @cached_property
    @abstractmethod
    def method(self) -> Method:
        """Return the LightningModule that trains the student."""

    def taught(self, **known: Any) -> Method:
        """Return a method with a second model; ``known`` holds the arguments that only some have."""
        known |= {"objective": self.objective, "options": self.options}
        return build.method(self.config, self.student, self.splits, **known)

    def share(self) -> None:
        """Compute what the runs of a sweep have in common: the tokens and the initial student."""
        for name in ("train", "validation", "test"):
            self.encoded(name)
        build.student(self.config, self.tokenizer, self.splits.label_names, self.teacher)

    def encoded(self, name: str) -> EncodedSplit:
        """Return a split as the student reads it."""
        split, length = self.rows(name), self.config.data.max_length

        def facts() -> dict[str, Any]:
            # Supervised runs leave out rows without a label; a composition has the tokenizer of its teacher.
            return {"split": name, **row_hashes(split), "own": type(self).tokenizer is Assembly.tokenizer}

        return once("encoded", self.config, build.WORDS, lambda: build.encoded(split, self.tokenizer, length), facts)

    def train(self) -> EncodedSplit | StreamedSplit:
        """Return the training split, with the teacher's outputs that the method needs."""
        return self.beside_counterparts(self.read("train"))

    def beside_counterparts(self, split: EncodedSplit) -> EncodedSplit:
        """Return the training split with what the method reads of rows whose words for women and men are exchanged."""
        texts = self.rows("train")["text"]
        if getattr(self.options, "consistency", 0):
            split = counterparts.with_tokens(split, texts, self.tokenizer, self.config.data.max_length)
        if strength := getattr(self.options, "fair_weights", 0):
            split = counterparts.with_weights(split, texts, strength)
        return split

    def read(self, name: str) -> EncodedSplit:
        """Return a split, with the teacher's outputs that the method needs for this split."""
        return self.encoded(name)

    def attached(self, name: str, features: Collection[Feature] = ()) -> EncodedSplit:
        """Return a split with the teacher's logits and these features."""
        return self.outputs.attached_to(self.encoded(name), self.rows(name), name, features)

    def require_room(self, teacher: AnyTeacher, features: Collection[Feature]) -> None:
        """Refuse features of the training rows that are too large for the cache."""
        cache, texts = self.config.cache, self.splits.train["text"]
        if cache.use:
            by_token = any(feature.pooling is None for feature in features)
            tokens = len(teacher.tokens(texts).values) if by_token else 0
            require_room(teacher.config, features, len(texts), tokens, "train", cache.max_gb)

    def teacher_logits(self, name: str) -> np.ndarray | None:
        """Return the logits ``[N, C]`` of the student's teacher; None without one."""
        return None if self.outputs.teacher is None else self.outputs.logits(getattr(self.splits, name), name)

    def teacher_cost(self) -> dict[str, Any] | None:
        """Return the size of the student's teacher and the time of its training; None without one."""
        return self.outputs.teacher.cost() if self.outputs.teacher else None

    def teacher_readers(self) -> list[Reader]:
        """Return the models of the student's teacher, to time them; none without one."""
        return [Reader(one.model, one.tokenizer, one.max_length) for one in self.outputs.members]

    def figures(self) -> dict[str, Any]:
        """Return the entries of ``metrics.json`` that only this method has."""
        return {}

    def models_to_keep(self) -> dict[str, tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
        """Return further models to save in ``partners/``, each with its tokenizer."""
        return {}
