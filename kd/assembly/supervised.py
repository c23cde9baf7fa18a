"""The supervised baseline: labels only."""

from __future__ import annotations

from functools import cached_property
from typing import final

from datasets import Dataset

from kd.assembly.base import Assembly
from kd.config import build
from kd.methods.base import Method
from kd.teacher.teacher import labelled_rows


@final
class SupervisedAssembly(Assembly):
    """Gold labels only: a row without one teaches nothing here."""

    def rows(self, name: str) -> Dataset:
        return labelled_rows(self.splits.train) if name == "train" else super().rows(name)

    @cached_property
    def method(self) -> Method:
        return build.method(self.config, self.student)
