"""What each method needs around it: tokens, student, matched layers, partners, and the teacher's columns."""

from __future__ import annotations

from omegaconf import DictConfig

from kd.assembly.base import Assembly
from kd.assembly.distillation import Distilled
from kd.assembly.joint import Together
from kd.assembly.supervised import Alone
from kd.assembly.to_student import Composed
from kd.assembly.to_teacher import Hinted
from kd.config import build
from kd.data.sources import Splits
from kd.methods.base import Method
from kd.methods.distillation import Distillation
from kd.methods.feature_mapping import ToStudent, ToTeacher
from kd.methods.joint import Joint
from kd.methods.supervised import Supervised
from kd.teacher.teacher import Teacher

__all__ = ["ASSEMBLIES", "Assembly", "Composed", "assemble"]

ASSEMBLIES: dict[type[Method], type[Assembly]] = {
    Supervised: Alone,
    Distillation: Distilled,
    ToTeacher: Hinted,
    ToStudent: Composed,
    Joint: Together,
}


def assemble(config: DictConfig, splits: Splits, teacher: Teacher | None) -> Assembly:
    """The run of this configuration, ready for its teacher."""
    return ASSEMBLIES[build.method_class(config)](config, splits, teacher)
