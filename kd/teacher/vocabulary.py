"""Choose the model that a student starts from, and read the words of a vocabulary with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kd.errors import KDError
from kd.features.feature import Feature, depth_of
from kd.models.encoded import Encoder
from kd.runtime.devices import Devices
from kd.teacher.base import AnyTeacher
from kd.teacher.ensemble import Ensemble
from kd.teacher.ready import ReadyTeacher, Wanted
from kd.teacher.teacher import Teacher


def untrained(teacher: AnyTeacher, on: Devices) -> ReadyTeacher:
    """Return the teacher's backbone before any fine-tuning; of an ensemble, that of the first member.

    Raises:
        KDError: the teacher has no backbone.
    """
    first = next(iter(teacher.members.values())) if isinstance(teacher, Ensemble) else teacher
    if not isinstance(first, Teacher):
        raise KDError(
            f"fine_tuned=false reads the backbone of the teacher, and '{first.name_or_path}' has none; set it to true"
        )
    return first.untrained(on)


def encoder(teacher: ReadyTeacher, pooling: str, outputs: Path) -> Encoder:
    """Return the teacher as a reader of words, whose vectors are kept in the teacher cache below ``outputs``."""
    feature = Feature("hidden_states", depth_of(teacher.config), pooling)

    def vectors(texts: Sequence[str]) -> torch.Tensor:
        found, _ = teacher.cached(Wanted(texts, "vocabulary", outputs, [feature], with_logits=False))
        return torch.from_numpy(np.array(found[feature.column], dtype=np.float32))

    return Encoder(teacher.config.hidden_size, vectors)
