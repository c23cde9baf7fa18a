"""What a run is made of before it trains, whatever its method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.config import build
from kd.config.make import once
from kd.data.batching import EncodedSplit, in_slices
from kd.data.sources import Splits
from kd.data.streaming import StreamedSplit
from kd.methods.base import Method
from kd.runtime.devices import Devices
from kd.teacher.base import AnyReadyTeacher, AnyTeacher
from kd.teacher.label_order import check_members
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.transfer_set import Transfer


class Assembly(ABC):
    """A run before it trains. Mistakes show when it is made, before the teacher is fine-tuned.

    Args:
        config: of the run.
        splits: its rows.
        teacher: None for ``teacher=none``.
    """

    def __init__(self, config: DictConfig, splits: Splits, teacher: AnyTeacher | None):
        self.config, self.splits, self.teacher = config, splits, teacher
        self.options = build.method_options(config)

    def rows(self, name: str) -> Dataset:
        """Return the rows of a split that the student reads."""
        return getattr(self.splits, name)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's; learnt from all rows, so that a baseline has the vocabulary of its counterpart."""
        texts = in_slices(self.splits.train["text"])
        if self.transfer is not None:
            texts = chain(texts, self.transfer.sample())
        return build.tokenizer(self.config, texts, self.teacher)

    @cached_property
    def transfer(self) -> Transfer | None:
        """The rows without a label that are streamed; None where all rows are in the training split."""
        return Transfer.of(self.config, self.splits) if self.config.data.get("stream") else None

    @cached_property
    def student(self) -> PreTrainedModel:
        """The student before training."""
        return build.student(self.config, self.tokenizer, self.splits.label_names, self.teacher)

    @cached_property
    def outputs(self) -> TeacherOutputs:
        """The outputs of the teacher. Their first use fine-tunes the teacher, if nobody has done it before.

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
        """The LightningModule that trains the student."""

    def share(self) -> None:
        """Make what the runs of a sweep have in common: tokens and the initial student."""
        for name in ("train", "validation", "test"):
            self.encoded(name)
        build.student(self.config, self.tokenizer, self.splits.label_names, self.teacher)

    def encoded(self, name: str) -> EncodedSplit:
        """Return a split as the student reads it."""
        split = self.rows(name)

        def facts() -> dict[str, Any]:
            own = type(self).tokenizer is Assembly.tokenizer
            return {"split": name, "rows": len(split), "own": own}  # supervised runs leave out rows without a label

        return once(
            "encoded",
            self.config,
            build.WORDS,
            lambda: build.encoded(split, self.tokenizer, self.config.data.max_length),
            facts,
        )

    def train(self) -> EncodedSplit | StreamedSplit:
        """Return the training split, with the teacher's outputs that the method needs."""
        return self.encoded("train")

    def validation(self) -> EncodedSplit:
        """Return the validation split, with the teacher's outputs that the method needs."""
        return self.encoded("validation")

    def teacher_logits(self, name: str) -> np.ndarray | None:
        """Return the logits ``[N, C]`` of the student's teacher; None without one."""
        return self.outputs.of(getattr(self.splits, name), name)

    def teacher_cost(self, texts: list[str]) -> dict[str, Any] | None:
        """Return what the student's teacher costs; None without one."""
        return self.outputs.cost(texts) if self.outputs.teacher else None

    def figures(self) -> dict[str, Any]:
        """Return what ``metrics.json`` holds beyond the figures of every method."""
        return {}

    def models_to_keep(self) -> dict[str, tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
        """Return the further models that are saved in ``partners/``, each with its tokenizer."""
        return {}

    def _objective(self):
        return build.objective(self.config, len(self.splits.label_names))
