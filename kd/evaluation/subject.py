"""What is measured, and the models that it is compared with. They are loaded only when they are asked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from kd.classifier import load, logits_of, unnamed
from kd.config.model_options import teacher_of
from kd.errors import KDError
from kd.evaluation.measures import Logits
from kd.evaluation.rows import Rows
from kd.options.methods import BAG
from kd.report.calibration import fit_temperature
from kd.run import predictions
from kd.run.directory import RunDirectory

READ = ("config.yaml", "environment.json", "metrics.json", "predictions.parquet", "model")
log = logging.getLogger(__name__)


@dataclass
class Subject:
    """A classifier that is measured.

    Args:
        path: a run, a Hugging Face folder or an export.
        given_run: the run whose rows, teacher and bag are used, for a model that is no run.
        given_teacher, given_bag: those to compare with, in place of the run's own.
        batch_size: texts at a time.
        given_names: of its labels, in the order of its logits, in place of its own.
    """

    path: Path
    given_run: Path | None = None
    given_teacher: Path | None = None
    given_bag: Path | None = None
    batch_size: int = 256
    given_names: list[str] | None = None

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self.run = (
            RunDirectory.finished(self.given_run, READ) if self.given_run else RunDirectory.of_model(self.path, READ)
        )
        self.is_run = self.run is not None and self.run.path.resolve() == self.path.resolve()
        self.classifier = load(self.path, self.given_names)
        environment = self.run.environment() if self.run else {}
        self.label_names = (environment.get("data") or {}).get("label_names") or list(self.classifier.label_names)
        if unnamed(self.label_names):
            found = ", ".join(self.label_names)
            self.note(f"the labels are named {found}; give those of your files, in this order, with --label-names")
        self.logits = logits_of(self.classifier, f"'{self.path}'", self.label_names, self.batch_size)
        self.stored = predictions.of_run(self.run, self.run.metrics(), environment, {}) if self.run else {}

    def note(self, text: str) -> None:
        """Keep a remark for the page, once, and print it."""
        if text not in self.notes:
            self.notes.append(text)
            log.warning("%s", text)

    def temperature(self, validation: Rows | None) -> float | None:
        """Return the temperature that calibrates the classifier on the run's validation rows; None without them.

        Args:
            validation: these rows, for a model that is not the run itself and has no stored outputs.
        """
        split = self.stored.get("validation")
        if self.is_run and split:
            return fit_temperature(split.logits, split.labels)
        if validation:
            return fit_temperature(self.logits(validation.texts), validation.labels)
        self.note("no validation rows to fit a temperature to: the calibration after scaling is left out")
        return None

    @cached_property
    def teacher_path(self) -> Path | None:
        """The teacher that texts are given to; None where there is none."""
        return self.given_teacher or teacher_of(self.run, self.path, self.note)

    @cached_property
    def teacher(self) -> Logits | None:
        """The logits of the teacher."""
        return self.loaded(self.teacher_path) if self.teacher_path else None

    def teacher_logits(self, rows: Rows) -> np.ndarray | None:
        """Return the teacher's logits; on the run's own splits they are those that the run has stored."""
        stored = self.stored.get(rows.name) if rows.is_split and not self.given_teacher else None
        if stored and stored.teacher and np.array_equal(stored.labels, rows.labels) and not self.is_own_teacher:
            return stored.teacher.logits
        return self.teacher(rows.texts) if self.teacher else None

    @cached_property
    def is_own_teacher(self) -> bool:
        """Whether the classifier is itself the teacher of the run."""
        return not self.is_run and self.run is not None and not self.given_teacher and self.teacher_path is None

    @cached_property
    def bag_path(self) -> Path | None:
        """The bag of n-grams to compare with: the given one, or a finished one beside the run, on the same rows."""
        if self.given_bag or self.run is None:
            return self.given_bag
        if is_bag(self.run):
            return None
        test = (self.run.environment().get("data") or {}).get("test")
        for place in sorted(self.run.path.resolve().parent.glob("*/status.json")):
            try:
                other = RunDirectory.finished(place.parent, READ)
                if is_bag(other) and (other.environment().get("data") or {}).get("test") == test:
                    return other.path
            except KDError:
                continue  # unfinished or damaged: it is not compared with
        self.note("no finished bag of n-grams lies beside the run: kd train student=bag method=supervised trains one")
        return None

    @cached_property
    def bag(self) -> Logits | None:
        """The logits of the bag of n-grams."""
        return self.loaded(self.bag_path) if self.bag_path else None

    def loaded(self, path: Path) -> Logits:
        """Load a classifier to compare with."""
        return logits_of(load(path), f"'{path}'", self.label_names, self.batch_size)


def is_bag(run: RunDirectory) -> bool:
    """Return whether a run is a bag of n-grams that learned without a teacher."""
    return (run.config().get("student") or {}).get("_target_") == BAG and run.metrics()["method"] == "supervised"
