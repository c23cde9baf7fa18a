"""Classify with students in a row, and with the teacher where none of them is sure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax

from kd.cascade.threshold import NOBODY, Outcomes, confidence_of
from kd.classifier import Classifier, load
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.storage import cascade_record
from kd.storage.checksum import digest, file_sha256


@dataclass(frozen=True)
class Cascade:
    """A classifier of several: a text is answered by the first student that is sure, or by the teacher.

    Args:
        students: the fastest first.
        teacher: answers what they leave.
        temperatures: divides the logits of each student.
        threshold: least probability at which a student answers.

    Raises:
        KDError: the labels differ.
    """

    students: Sequence[Classifier]
    teacher: Classifier
    temperatures: Sequence[float]
    threshold: float

    def __post_init__(self) -> None:
        for other in (*self.students, self.teacher):
            if sorted(other.label_names) != sorted(self.label_names):
                raise KDError(
                    f"expected the student's labels {', '.join(self.label_names)} in every classifier of the cascade, "
                    f"found {', '.join(other.label_names)}; choose a teacher of the same task, or rename its labels"
                )

    @classmethod
    def load(cls, path: Path) -> Cascade:
        """Load the cascade that ``kd cascade`` has written into a run directory.

        Raises:
            KDError: there is none, a student or the teacher is missing, or one of them was changed since.
        """
        RunDirectory.finished(path, ("config.yaml", "model"))
        record = cascade_record.read(path)
        found = []
        for role, stage in [*(("student", one) for one in record["students"]), ("teacher", record["teacher"])]:
            place = path / stage["path"]
            if not place.is_dir():
                raise KDError(
                    f"expected the {role} of the cascade in '{place}', found no such folder; bring it back, or run kd "
                    "cascade again with another"
                )
            if checksum(place) != stage["checksum"]:
                raise KDError(
                    f"the {role} in '{place}' is not the one that the cascade in '{path}' was made with, so that its "
                    "promise does not hold; run kd cascade again"
                )
            found.append(load(place))
        temperatures = [stage["temperature"] for stage in record["students"]]
        threshold = NOBODY if record["threshold"] is None else record["threshold"]
        return cls(found[:-1], found[-1], temperatures, threshold)

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
        return [*(names if len(names) > 1 else ["student"]), "teacher"]

    def stage_logits(self, stage: int, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return the logits of one student, divided by its temperature, or of the teacher, in the cascade's labels."""
        classifier = [*self.students, self.teacher][stage]
        order = [classifier.label_names.index(name) for name in self.label_names]
        logits = classifier.logits(texts, batch_size)[:, order]
        return logits if stage == len(self.students) else logits / self.temperatures[stage]

    def answered(self, texts: Sequence[str], batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
        """Return logits ``[N, C]``, and ``[N]`` who answered, as places in `stages`."""
        logits = np.empty((len(texts), len(self.label_names)), np.float32)
        by, left = np.full(len(texts), len(self.students)), np.arange(len(texts))
        first = len(self.students) if self.threshold == NOBODY else 0
        for stage in range(first, len(self.students) + 1):
            if not len(left):
                break
            found = self.stage_logits(stage, [texts[int(row)] for row in left], batch_size)
            sure = confidence_of(found) >= (self.threshold if stage < len(self.students) else -math.inf)
            logits[left[sure]], by[left[sure]] = found[sure], stage
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

    def outcomes(self, texts: Sequence[str], labels: np.ndarray, batch_size: int = 64) -> Outcomes:
        """Return what each student and the teacher say about all texts, whatever the threshold."""
        logits = [self.stage_logits(stage, texts, batch_size) for stage in range(len(self.students) + 1)]
        confidences = np.stack([confidence_of(own) for own in logits[:-1]])
        return Outcomes(confidences, np.stack([own.argmax(axis=1) for own in logits]), labels, len(self.label_names))


def checksum(path: Path) -> str:
    """Return the SHA-256 of the files of a run's model, a Hugging Face folder or an export, but for its README."""
    folder = path / "model" if (path / "status.json").is_file() else path
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".md")
    return digest({file.relative_to(folder).as_posix(): file_sha256(file) for file in files})
