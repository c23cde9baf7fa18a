"""What each method needs around it: tokens, student, matched layers, partners, and the teacher's columns."""

from __future__ import annotations

from omegaconf import DictConfig

from kd import build
from kd.assembly.alone import Alone
from kd.assembly.base import Assembly
from kd.assembly.composed import Composed
from kd.assembly.distilled import Distilled
from kd.assembly.hinted import Hinted
from kd.assembly.together import Together
from kd.data.sources import Splits
from kd.methods.base import Method
from kd.methods.distillation import Distillation
from kd.methods.feature_mapping import ToStudent, ToTeacher
from kd.methods.joint import Joint
from kd.methods.supervised import Supervised
from kd.teacher import Teacher

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
