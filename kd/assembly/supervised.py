"""The parts of a supervised run."""

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
    """A run that trains on gold labels alone; rows without one are left out."""

    def rows(self, name: str) -> Dataset:
        return labelled_rows(self.splits.train) if name == "train" else super().rows(name)

    @cached_property
    def method(self) -> Method:
        return build.method(self.config, self.student, self.splits, options=self.options)
