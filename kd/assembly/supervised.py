"""The supervised baseline: labels only."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from omegaconf import DictConfig

from kd.assembly.base import Assembly
from kd.config import build
from kd.data.sources import Splits
from kd.methods.base import Method
from kd.teacher.teacher import Teacher, labelled_rows


@final
class SupervisedAssembly(Assembly):
    """Gold labels only: rows without one teach nothing here."""

    def __init__(self, config: DictConfig, splits: Splits, teacher: Teacher | None):
        super().__init__(config, splits, teacher)
        _ = self.tokenizer  # before the rows without a label go
        self.splits = replace(splits, train=labelled_rows(splits.train))

    def method(self) -> Method:
        return build.method(self.config, self.student)
