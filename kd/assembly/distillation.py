"""The parts of a distillation run."""

from __future__ import annotations

from functools import cached_property
from typing import cast, final

from datasets import Dataset

from kd.assembly.base import Assembly
from kd.data.batching import EncodedSplit
from kd.data.streaming import StreamedSplit
from kd.methods.base import Method
from kd.teacher.answers import Answers


@final
class DistillationAssembly(Assembly):
    """A run that trains on the teacher's logits and the labels."""

    def rows(self, name: str) -> Dataset:
        """Return the rows of a split; of the training split those that a teacher's file or a gold label can teach."""
        rows = super().rows(name)
        if name == "train" and isinstance(self.teacher, Answers):
            return self._taught
        return rows

    @cached_property
    def _taught(self) -> Dataset:
        return cast(Answers, self.teacher).taught(self.splits.train, self.splits.label_names)

    @cached_property
    def method(self) -> Method:
        return self.taught(teacher=self.outputs.source())

    def train(self) -> EncodedSplit | StreamedSplit:
        resident = self.attached("train")
        if self.transfer is None:
            return resident
        self.transfer.label(self.tokenizer, self.outputs)
        return self.transfer.split(resident, self.tokenizer, self.outputs)
