"""Put the parts of a run together: tokens, student, teacher's outputs, matched layers and partners of each method."""

from __future__ import annotations

from omegaconf import DictConfig

from kd.assembly.base import Assembly
from kd.assembly.composition import CompositionAssembly
from kd.assembly.distillation import DistillationAssembly
from kd.assembly.hints import HintsAssembly
from kd.assembly.joint import JointAssembly
from kd.assembly.supervised import SupervisedAssembly
from kd.config import build
from kd.data.sources import Splits
from kd.methods.base import Method
from kd.methods.composition import Composition
from kd.methods.distillation import Distillation
from kd.methods.hints import Hints
from kd.methods.joint import Joint
from kd.methods.supervised import Supervised
from kd.teacher.base import AnyTeacher

ASSEMBLIES: dict[type[Method], type[Assembly]] = {
    Supervised: SupervisedAssembly,
    Distillation: DistillationAssembly,
    Hints: HintsAssembly,
    Composition: CompositionAssembly,
    Joint: JointAssembly,
}


def assemble(config: DictConfig, splits: Splits, teacher: AnyTeacher | None) -> Assembly:
    """Return the parts of a run. The teacher is not fine-tuned yet."""
    return ASSEMBLIES[build.method_class(config)](config, splits, teacher)
