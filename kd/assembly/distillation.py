"""The parts of a distillation run."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import cast, final

import numpy as np
from datasets import Dataset
from omegaconf import OmegaConf

from kd.assembly.base import Assembly
from kd.config.targets import plain
from kd.data.batching import EncodedSplit
from kd.data.streaming import StreamedSplit
from kd.errors import KDError
from kd.methods.base import Method
from kd.options.sections import Selection
from kd.predictor import Predictor
from kd.teacher.answers import Answers
from kd.teacher.selection import chosen_rows


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

    def _selected(self, split: EncodedSplit) -> EncodedSplit:
        """Return the training split with those rows without a label that ``selection`` keeps."""
        options = Selection(**plain(self.config.get("selection") or OmegaConf.create()))
        if options.rows is None:
            return split

        def of_student(rows: np.ndarray) -> np.ndarray:
            student, names = Predictor.load(Path(options.path or "")), self.splits.label_names
            if student.label_names != names:
                raise KDError(
                    f"selection.path: expected a student for the labels {', '.join(names)}, found one for "
                    f"{', '.join(student.label_names)}; give another"
                )
            texts = self.rows("train")["text"]
            return student.logits([texts[row] for row in rows.tolist()])

        logits = cast(np.ndarray, split.columns["teacher_logits"])
        seed = self.config.transfer_seed
        return split.take(chosen_rows(options, split.labels, logits, of_student, self.splits.label_names, seed))

    def train(self) -> EncodedSplit | StreamedSplit:
        resident = self._selected(self.beside_counterparts(self.attached("train")))
        if self.transfer is None:
            return resident
        self.transfer.label(self.tokenizer, self.outputs)
        return self.transfer.split(resident, self.tokenizer, self.outputs)
