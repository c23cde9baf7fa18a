"""Distillation: the teacher's logits beside the labels."""

from __future__ import annotations

from functools import cached_property
from typing import final

from kd.assembly.base import Assembly
from kd.config import build
from kd.data.batching import EncodedSplit
from kd.data.streaming import StreamedSplit
from kd.methods.base import Method


@final
class DistillationAssembly(Assembly):
    """The teacher's logits beside the labels."""

    @cached_property
    def method(self) -> Method:
        return build.method(
            self.config, self.student, objective=self._objective(), options=self.options, teacher=self.outputs.source()
        )

    def train(self) -> EncodedSplit | StreamedSplit:
        resident = self.outputs.attached_to(self.encoded("train"), self.splits.train, "train")
        if self.transfer is None:
            return resident
        self.transfer.label(self.tokenizer, self.outputs)
        return self.transfer.split(resident, self.tokenizer, self.outputs)
