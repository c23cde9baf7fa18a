"""Define what teachers, students, batches and losses exchange.

A *batch* is a dict of tensors: ``input_ids`` and ``attention_mask`` ``[B, L]``, ``labels`` ``[B]`` (-100: no label) and
``index`` ``[B]`` (row number in its split). Some batches hold more: ``teacher_input_ids`` and
``teacher_attention_mask`` where a live teacher has another tokenizer; ``teacher_logits`` ``[B, C]`` and the columns
of `kd.features.feature` where the teacher's outputs come from the cache; ``row_weights`` ``[B]`` where rows have
weights.

A *model*, teacher or student, is a ``transformers.PreTrainedModel`` that returns a
``SequenceClassifierOutput(logits, hidden_states, attentions)``.

A *loss* is a `Loss`: ``forward(student, teacher, batch)``, always in this order. It reads an `Answer` of each model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from kd.options.declared import Checked, NotNegative

IGNORED_LABEL = -100
"""The label of a row without one; torch's cross-entropy leaves such rows out."""

ATTENTION_OUTPUTS = frozenset({"queries", "keys", "values"})
"""The outputs from which attention maps and value relations are computed; every attention layer has all three."""

ALL_OUTPUTS = frozenset({"logits", "hidden_states"}) | ATTENTION_OUTPUTS

Batch = dict[str, Tensor]
Level = Literal["sentence", "token"]
Layers = str | list | None  # type: ignore[type-arg]  # messages show it: "a list of any" would say less


def supported_outputs(config: PretrainedConfig) -> frozenset[str]:
    """Return those of `ALL_OUTPUTS` that a model of this config can give; a student's config class may list fewer."""
    supported: frozenset[str] = getattr(config, "supported_outputs", ALL_OUTPUTS)
    return supported


@dataclass
class Answer:
    """The outputs of a model for a batch, in the form that a loss reads.

    The tuples have one entry for each matched pair of layers: entry i of the student's tuple and entry i of the
    teacher's belong together. Layers are matched and mapped before a loss is called.

    Args:
        logits: ``[B, C]``.
        hidden_states: ``[B, d]`` each for a loss of level "sentence", ``[B, L, d]`` for "token"; padded
            positions may hold any value.
        queries: ``[B, H, L, d_head]`` each, of H heads; so are keys and values.
        keys: as queries.
        values: as queries.
        variances: ``[d]`` each, > 0, on the student's side: for a loss that `needs_variances`.
    """

    logits: Tensor
    hidden_states: tuple[Tensor, ...] = ()
    queries: tuple[Tensor, ...] = ()
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()
    variances: tuple[Tensor, ...] = ()


class Loss(nn.Module, Checked, ABC):
    """A transfer term: one summand of the objective that compares the student with the teacher.

    It has no parameters of its own: mappers belong to the method.

    Args:
        weight: factor of this term in the sum of the transfer terms.

    Raises:
        KDError: an option is outside its range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    """The model outputs that the term reads, out of `ALL_OUTPUTS`."""

    is_mean_over_rows: bool = False
    """Whether the term of a batch is the mean of the terms of its rows, so that two batches of 8 rows equal one of 16.

    It is not where rows are compared with each other, or where the mean is over tokens. False is the safe default."""

    weighs_rows: ClassVar[bool] = False
    """Whether the term is a mean over rows with the weights ``batch["row_weights"]``."""

    tempered: ClassVar[bool] = False
    """Whether the term has a ``temperature``, a number or a scalar tensor, that a schedule may set."""

    highest_temperature: float = math.inf
    """The highest temperature that a schedule may set."""

    teaches_back: bool = False
    """Whether the teacher receives gradient too; only joint training sets it."""

    def __init__(self, weight: NotNegative = 1.0):
        super().__init__()
        self.weight = weight

    @abstractmethod
    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        """Return the term without its weight: a scalar, in float32 at least.

        `forward` has turned mixed precision off and detached the teacher.
        """

    @final  # type: ignore[misc]  # torch declares forward as an attribute
    def forward(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        """Compute `term` in full precision, with gradient to the student only."""
        with torch.autocast(student.logits.device.type, enabled=False):
            return self.term(student, teacher if self.teaches_back else detached(teacher), batch)

    def degenerate(self, num_labels: int) -> str | None:
        """Return a sentence that says what is left of the term with so few labels; None where nothing is lost."""
        return None


class FeatureLoss(Loss, ABC):
    """A term on hidden states or attention, computed for matched pairs of layers.

    Args:
        level: "sentence" for one vector a text, "token" for one vector a token; "token" needs one tokenizer for both.
        layers: the pairs of layers that this term reads, a rule or a list as for ``method.layers``; null: the pairs of
            ``method.layers``.
    """

    needs = frozenset({"hidden_states"})

    same_width: ClassVar[bool] = False
    """Whether both sides of a pair must have the same width. The student's side is then mapped."""

    needs_variances: ClassVar[bool] = False
    """Whether the term reads ``student.variances``."""

    def __init__(self, level: Level = "sentence", layers: Layers = None, weight: NotNegative = 1.0):
        super().__init__(weight)
        self.level, self.layers = level, layers

    def mismatch(self, student: PretrainedConfig, teacher: PretrainedConfig) -> str | None:
        """Return a clause that says why the term cannot compare these two models; None where it can."""
        return None


def detached(answer: Answer) -> Answer:
    """Return the same outputs without their graph."""
    layers = {name: tuple(part.detach() for part in parts) for name, parts in vars(answer).items() if name != "logits"}
    return Answer(answer.logits.detach(), **layers)


def precise(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 at least: float64 stays float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
