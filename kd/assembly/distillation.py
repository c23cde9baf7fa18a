"""Distillation: the teacher's logits beside the labels."""

from __future__ import annotations

from typing import final

from kd.assembly.base import Assembly
from kd.config import build
from kd.data.batching import EncodedSplit
from kd.data.streaming import StreamedSplit
from kd.methods.base import Method


@final
class DistillationAssembly(Assembly):
    """The teacher's logits beside the labels."""

    def method(self) -> Method:
        return build.method(self.config, self.student, objective=self._objective(), teacher=self.answers.source())

    def train(self) -> EncodedSplit | StreamedSplit:
        resident = self.answers.attached_to(self.encoded("train"), self.splits.train, "train")
        if self.transfer is None:
            return resident
        self.transfer.label(self.tokenizer, self.answers)
        return self.transfer.split(resident, self.tokenizer, self.answers)
