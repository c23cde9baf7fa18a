"""Classify with students in a row, and with the teacher where none of them is sure."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, cast

import numpy as np
from scipy.special import softmax

from kd.cascade.threshold import NOBODY, Outcomes, confidence_of
from kd.classifier import Classifier, TeacherFailed, label_order, load
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.storage import cascade_record
from kd.storage.checksum import digest, file_sha256

log = logging.getLogger(__name__)

FALLBACK = "fallback"
"""The name of the last student where it answers because the teacher cannot."""


@dataclass(frozen=True)
class Cascade:
    """A classifier of several: a text is answered by the first student that is sure, or by the teacher.

    Args:
        students: the fastest first.
        teacher: answers what they leave; None where it cannot be loaded.
        temperatures: divides the logits of each student.
        threshold: least probability at which a student answers.
        fallback: let the last student answer where the teacher cannot.

    Raises:
        KDError: the labels differ.
    """

    students: Sequence[Classifier]
    teacher: Classifier | None
    temperatures: Sequence[float]
    threshold: float
    fallback: bool = False

    def __post_init__(self) -> None:
        for other in (*self.students, self.teacher):
            if other:
                label_order(other.label_names, self.label_names, "every classifier of the cascade")

    @classmethod
    def load(cls, path: Path, fallback: bool = False) -> Cascade:
        """Load the cascade that ``kd cascade`` has written into a run directory.

        Args:
            path: of the run.
            fallback: let the last student answer where the teacher cannot be loaded, or fails.

        Raises:
            KDError: there is none, a student or the teacher is missing, or one of them was changed since.
        """
        RunDirectory.finished(path, ("config.yaml", "model"))
        record = cascade_record.read(path)
        students = [_stage(path, "student", stage) for stage in record["students"]]
        teacher = None
        try:
            teacher = _stage(path, "teacher", record["teacher"])
        except (KDError, OSError) as error:
            if not fallback:
                raise
            log.warning("the student answers in the teacher's place, who cannot: %s", error)
        temperatures = [stage["temperature"] for stage in record["students"]]
        threshold = NOBODY if record["threshold"] is None else record["threshold"]
        return cls(students, teacher, temperatures, threshold, fallback)

    @property
    def label_names(self) -> list[str]:
        return self.students[0].label_names

    @property
    def max_length(self) -> int:
        return self.students[0].max_length

    @property
    def text_column(self) -> str:
        return self.students[0].text_column

    @property
    def stages(self) -> list[str]:
        """Return the names of who can answer a text."""
        names = [f"student {number}" for number in range(1, len(self.students) + 1)]
        return [*(names if len(names) > 1 else ["student"]), "teacher", *[FALLBACK] * self.fallback]

    def stage_logits(self, stage: int, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return the logits of one student, divided by its temperature, or of the teacher, in the cascade's labels."""
        classifier = [*self.students, self.teacher][stage]
        if classifier is None:
            raise KDError("the teacher could not be loaded")
        order = label_order(classifier.label_names, self.label_names, "every classifier of the cascade")
        logits = classifier.logits(texts, batch_size)[:, order]
        return logits if stage == len(self.students) else logits / self.temperatures[stage]

    def answered(self, texts: Sequence[str], batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
        """Return logits ``[N, C]``, and ``[N]`` who answered, as places in `stages`.

        Raises:
            TeacherFailed: there is a text for the teacher, which fails, and no fallback.
        """
        logits = np.empty((len(texts), len(self.label_names)), np.float32)
        by, left = np.full(len(texts), len(self.students)), np.arange(len(texts))
        first = len(self.students) if self.threshold == NOBODY else 0
        for stage in range(first, len(self.students) + 1):
            if not len(left):
                break
            rest, who = [texts[int(row)] for row in left], stage
            try:
                found = self.stage_logits(stage, rest, batch_size)
            except Exception as error:
                if stage < len(self.students):
                    raise
                if not self.fallback:
                    raise TeacherFailed(
                        f"the teacher of this cascade failed ({type(error).__name__}: {shorten(str(error), 200)}); try "
                        "again later, or use --fallback student"
                    ) from error
                if self.teacher:
                    log.warning("the teacher failed (%s); the student answers in its place", type(error).__name__)
                found, who = self.stage_logits(stage - 1, rest, batch_size), stage + 1
            sure = confidence_of(found) >= (self.threshold if stage < len(self.students) else -math.inf)
            logits[left[sure]], by[left[sure]] = found[sure], who
            left = left[~sure]
        return logits, by

    def answers(self, texts: Sequence[str], batch_size: int = 64) -> tuple[np.ndarray, list[str]]:
        """Return probabilities ``[N, C]``, and the name of who answered each text, as in `stages`."""
        logits, by = self.answered(texts, batch_size)
        return softmax(logits, axis=1), [self.stages[stage] for stage in by]

    def logits(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return logits ``[N, C]``, float32, row i for text i."""
        return self.answered(texts, batch_size)[0]

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return probabilities ``[N, C]``; each row sums to 1."""
        return self.answers(texts, batch_size)[0]

    def ask_teacher(self, text: str) -> dict[str, float]:
        """Return the teacher's probabilities of the labels."""
        found = softmax(self.stage_logits(len(self.students), [text])[0])
        return dict(zip(self.label_names, found.tolist(), strict=True))

    def for_another_thread(self) -> Cascade:
        """Return the same cascade with a tokenizer of its own for the teacher. Two threads cannot share one."""
        if self.teacher is None or not is_dataclass(self.teacher):
            return self  # that of an export can be shared
        teacher = cast(Any, self.teacher)
        return replace(self, teacher=replace(teacher, tokenizer=copy.deepcopy(teacher.tokenizer)))

    def outcomes(self, texts: Sequence[str], labels: np.ndarray, batch_size: int = 64) -> Outcomes:
        """Return what each student and the teacher say about all texts, whatever the threshold."""
        logits = [self.stage_logits(stage, texts, batch_size) for stage in range(len(self.students) + 1)]
        confidences = np.stack([confidence_of(own) for own in logits[:-1]])
        return Outcomes(confidences, np.stack([own.argmax(axis=1) for own in logits]), labels, len(self.label_names))


def _stage(run: Path, role: str, stage: dict[str, Any]) -> Classifier:
    """Load a student or the teacher of the cascade of a run, if it is still the same."""
    place = run / stage["path"]
    if not place.is_dir():
        raise KDError(
            f"expected the {role} of the cascade in '{place}', found no such folder; bring it back, run kd "
            f"cascade again with another{', or use --fallback student' if role == 'teacher' else ''}"
        )
    if checksum(place) != stage["checksum"]:
        raise KDError(
            f"the {role} in '{place}' is not the one that the cascade in '{run}' was made with, so that its "
            "promise does not hold; run kd cascade again"
        )
    return load(place)


def checksum(path: Path) -> str:
    """Return the SHA-256 of the files of a run's model, a Hugging Face folder or an export, but for its README."""
    folder = path / "model" if RunDirectory.is_one(path) else path
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".md")
    return digest({file.relative_to(folder).as_posix(): file_sha256(file) for file in files})
