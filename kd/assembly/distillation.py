"""The parts of a distillation run."""

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
    """A run that trains on the teacher's logits and the labels."""

    @cached_property
    def method(self) -> Method:
        return build.method(
            self.config,
            self.student,
            self.splits,
            objective=self.objective,
            options=self.options,
            teacher=self.outputs.source(),
        )

    def train(self) -> EncodedSplit | StreamedSplit:
        resident = self.attached("train")
        if self.transfer is None:
            return resident
        self.transfer.label(self.tokenizer, self.outputs)
        return self.transfer.split(resident, self.tokenizer, self.outputs)
