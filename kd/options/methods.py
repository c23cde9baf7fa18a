"""Declare the options of each method, and which other parts of the configuration it does not read. Needs no torch.

``conf/method/NAME.yaml`` gives the defaults. The identity of a run depends on these lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from kd.options.declared import CheckedFields, CountOrNone, DepthOrNone, NotNegative

TRANSFER = ("alpha", "temperature", "loss", "balance", "mapper", "peers", "selection")
"""Parts of the configuration that only a method with a second model reads."""


@dataclass(frozen=True)
class MethodOptions(CheckedFields):
    """The options of a method; each method has its subclass."""

    unread: ClassVar[tuple[str, ...]] = ()
    """Parts of the configuration that have no effect on the method. The identity of a run leaves them out."""


@dataclass(frozen=True)
class RegularisedOptions(MethodOptions):
    """What keeps a student from overfitting; see `kd.methods.regularisation`.

    Args:
        r_drop: weight of R-Drop, the divergence between two passes with different dropout; 0: one pass.
        mixup: parameter of the Beta distribution by which rows are mixed, such as 0.2; 0: none are.
        consistency: weight of the divergence between a row and the same row with words for women and men exchanged; 0:
            the second is not read.
    """

    r_drop: NotNegative = 0.0
    mixup: NotNegative = 0.0
    consistency: NotNegative = 0.0


@dataclass(frozen=True)
class SupervisedOptions(RegularisedOptions):
    """Options of ``method=supervised``.

    It reads the part ``teacher``: the student may start from the teacher's tokenizer and word table, and the run
    measures how often the student agrees with the teacher.
    """

    unread = (*TRANSFER, "cache")


@dataclass(frozen=True)
class DistillationOptions(RegularisedOptions):
    """Options of ``method=distillation``.

    Args:
        fair_weights: by how much rows count less in the transfer terms on which the teacher is biased: their weight is
            1 / (1 + fair_weights * difference from the row with words for women and men exchanged); 0: all count alike.
    """

    fair_weights: NotNegative = 0.0

    unread = ("mapper", "peers")


@dataclass(frozen=True)
class HintsOptions(MethodOptions):
    """Options of ``method=hints``.

    Args:
        mapper_learning_rate: learning rate of the mappers; null takes that of the optimizer.
        layers: which layers are compared: top, uniform, last, first, every_K, random, or pairs of numbers
            [[student, teacher], ...]; layer 0 is the embeddings.
        features_from: member of an ensemble whose features are used, or all; null takes the first member.
        pooling: how the states of the tokens become one vector for each text.
        shared_mapper: use one mapper for all student layers above the embeddings, as TinyBERT does.
        feature_epochs: number of epochs at the start with the feature losses alone; 0 uses all terms from the start.
        keep_features: keep the feature losses after these epochs.
    """

    mapper_learning_rate: NotNegative | None = None
    layers: str | list[tuple[int, int]] = "top"
    features_from: str | None = None
    pooling: Literal["mean", "cls"] = "mean"
    shared_mapper: bool = False
    feature_epochs: CountOrNone = 0
    keep_features: bool = False

    unread = ("peers",)


@dataclass(frozen=True)
class CompositionOptions(MethodOptions):
    """Options of ``method=composition``.

    Args:
        mapper_learning_rate: learning rate of the mapper; null takes that of the optimizer.
        layer: highest layer of the teacher that is used; 0 uses its embeddings only, null uses all layers.
    """

    mapper_learning_rate: NotNegative | None = None
    layer: DepthOrNone | None = None

    unread = ("peers", "tokenizer", "embeddings")


@dataclass(frozen=True)
class JointOptions(MethodOptions):
    """Options of ``method=joint``.

    Args:
        partner_schedule: learning-rate schedule of the teacher; peers follow ``optim.schedule``.
        teacher_start: initial weights of the teacher; warm is fine-tuned before, cold is pretrained with a new head.
        frozen_layers: number of the teacher's lowest layers that are not trained; above 0 also its embeddings.
        partner_learning_rate: learning rate of the partners; null takes 1e-5 for the teacher, that of the optimizer for
            peers.
        partner_weight_decay: weight decay of the partners' matrices.
        student_weight: weight of the student's label loss; null takes 1 - alpha.
        partner_weight: weight of each partner's label loss; null takes 1 for the teacher, that of the student for
            peers.
        partner_alpha: weight of a partner's transfer terms; null takes 0 for the teacher, alpha for peers.
        flow: let the gradient of the student's terms reach the partners; needs clean_targets=false.
        clean_targets: compute the targets without dropout, in a forward pass of their own.
        copies: number of peers with the student's architecture, each with its own seed.
        keep_partners: save the partners too, in ``partners/`` of the run directory.
    """

    partner_schedule: Any = None
    teacher_start: Literal["warm", "cold"] = "warm"
    frozen_layers: DepthOrNone = 0
    partner_learning_rate: NotNegative | None = None
    partner_weight_decay: NotNegative = 0.01
    student_weight: NotNegative | None = None
    partner_weight: NotNegative | None = None
    partner_alpha: NotNegative | None = None
    flow: bool = False
    clean_targets: bool = True
    copies: Annotated[int, Ge(0), Le(100)] = 0
    keep_partners: bool = False

    unread = ("mapper",)
    needs_teacher = ("frozen_layers", "teacher_start")
    """Options that have no effect with ``teacher=none``."""


BAG = "kd.models.bag.BagConfig"
CLOSED_FORM = (BAG, "kd.models.fitted.MajorityConfig")
"""The ``_target_`` of the students that are fitted without an optimizer step."""

UNREAD_IN_CLOSED_FORM = (
    *("optim", "trainer", "callbacks", "embeddings", "loss", "balance", "label_smoothing", "compile"),
    *("data.batch_size", "metric"),
)
"""Parts of the configuration that have no effect on these students."""

METHODS: dict[str, type[MethodOptions]] = {
    "kd.methods.supervised.Supervised": SupervisedOptions,
    "kd.methods.distillation.Distillation": DistillationOptions,
    "kd.methods.hints.Hints": HintsOptions,
    "kd.methods.composition.Composition": CompositionOptions,
    "kd.methods.joint.Joint": JointOptions,
}
"""The options by the ``_target_`` of the method."""
