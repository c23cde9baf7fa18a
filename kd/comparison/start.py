"""Make the teacher and the student of a configuration before anything is trained."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

import kd.models  # noqa: F401  registers the students
from kd.assembly import assemble
from kd.comparison.comparison import Comparison
from kd.comparison.sides import Sample, Side
from kd.config import build
from kd.data.sources import Splits
from kd.errors import KDError
from kd.predictor import Predictor
from kd.teacher.teacher import Teacher


def before(config: DictConfig, splits: Splits) -> Comparison:
    """Return the comparison of a run that `kd.config.check.check` accepts; nothing is trained.

    The teacher is the fine-tuned one if a run has trained it. Otherwise it is the backbone, which gives no answers.

    Args:
        config: as ``kd train`` composes it.
        splits: the rows that it names.

    Raises:
        KDError: there is no teacher, or it is not a single model.
    """
    teacher, outputs = build.teacher(config), Path(config.outputs)
    if not isinstance(teacher, Teacher):
        found = "none" if teacher is None else f"'{teacher.name_or_path}'"
        raise KDError(f"teacher: expected one Hugging Face model, found {found}; choose teacher=minilm or teacher=hf")
    there = not teacher.fine_tune or (outputs / "teachers" / teacher.key(splits)).is_dir()
    ready = teacher.ready(splits, outputs) if there else teacher.untrained()
    assembly, names = assemble(config, splits, teacher), splits.label_names
    reader = Predictor(ready.model, ready.tokenizer, teacher.max_length)
    student = Predictor(assembly.student.eval(), assembly.tokenizer, config.data.max_length)
    # The labels of a fine-tuned head are those of the data; those of a given one are compared by its answers.
    ready.model.config.id2label = dict(enumerate(names))
    return Comparison(
        Side("teacher", reader, names, answers=there),
        Side("student", student, names, answers=False, trained=False),
        Sample.of(splits.train, splits.validation, names, "validation"),
        float(config.temperature),
        "layers" in config.method,
    )
