"""What a run is made of before it trains, whatever its method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.config import build
from kd.config.make import once
from kd.data.batching import EncodedSplit, in_slices
from kd.data.sources import Splits
from kd.data.streaming import StreamedSplit
from kd.methods.base import Method
from kd.runtime.devices import Devices
from kd.teacher.label_order import check_members
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.ready import ReadyTeacher
from kd.teacher.teacher import Teacher
from kd.teacher.transfer_set import Transfer


class Assembly(ABC):
    """A run before it trains. What can be wrong shows when it is made, before the teacher is fine-tuned.

    Args:
        config: of the run.
        splits: its rows.
        teacher: None for ``teacher=none``.
    """

    def __init__(self, config: DictConfig, splits: Splits, teacher: Teacher | None):
        self.config, self.splits, self.teacher = config, splits, teacher
        self.options = build.method_options(config)
        self.answers = TeacherOutputs(None, Path(config.outputs), config.cache.use, config.cache.max_gb)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the student; learnt from all rows, so that a baseline has its counterpart's words."""
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
        """As training starts."""
        return build.student(self.config, self.tokenizer, self.splits.label_names, self.teacher)

    def ready_teacher(self) -> ReadyTeacher | None:
        """The teacher, ready to answer; fine-tuned if nobody has done it before.

        Raises:
            KDError: it was taken as it is, and has its labels in another order.
        """
        if self.teacher is None:
            return None
        splits = self.splits
        ready = self.teacher.ready(splits, Path(self.config.outputs), Devices.of(self.config))
        check_members(ready, self.answers, splits)
        return ready

    @abstractmethod
    def method(self) -> Method:
        """What trains the student, after ``answers`` has its teacher."""

    def encoded(self, name: str) -> EncodedSplit:
        """A split as the student reads it."""
        split = getattr(self.splits, name)

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
        """The training split with what the method needs of the teacher."""
        return self.encoded("train")

    def validation(self) -> EncodedSplit:
        """The validation split with what the method needs of the teacher."""
        return self.encoded("validation")

    def teacher_logits(self, name: str) -> np.ndarray | None:
        """``[N, C]`` of the teacher that the student learnt from."""
        return self.answers.of(getattr(self.splits, name), name)

    def teacher_cost(self, texts: list[str]) -> dict[str, Any] | None:
        """What the teacher takes that the student learnt from."""
        return self.answers.cost(texts) if self.answers.teacher else None

    def figures(self) -> dict[str, Any]:
        """What the run's ``metrics.json`` holds beyond every method's figures."""
        return {}

    def models_to_keep(self) -> dict[str, tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
        """What the run made beyond the student, with its tokenizer; kept in ``partners/``."""
        return {}

    def _objective(self):
        return build.objective(self.config, len(self.splits.label_names))
