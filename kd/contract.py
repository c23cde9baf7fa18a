"""What teachers, students, batches and losses promise each other.

A *batch* is a dict of tensors: ``input_ids`` and ``attention_mask`` ``[B, L]``, ``labels`` ``[B]``
(-100 where there is none), ``index`` ``[B]`` (row number in its split); ``teacher_input_ids`` and
``teacher_attention_mask`` where a live teacher reads another tokenizer; ``teacher_logits`` ``[B, C]`` and
the columns of `kd.features.feature` where the cache answers; ``row_weights`` ``[B]`` where some rows shall count more.

A *model*, teacher or student, is a ``transformers.PreTrainedModel`` that returns a
``SequenceClassifierOutput(logits, hidden_states, attentions)``.

A *loss* is a `Loss`: ``forward(student, teacher, batch)``, always in that order. It reads an `Answer` of each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, TypeVar, final

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.errors import OptionError

IGNORED_LABEL = -100
"""The label of a row without one; torch's cross-entropy skips it."""

ATTENTION_OUTPUTS = frozenset({"queries", "keys", "values"})
"""What attention maps and value relations are computed from; every attention layer has all three."""

ALL_OUTPUTS = frozenset({"logits", "hidden_states"}) | ATTENTION_OUTPUTS

Batch = dict[str, Tensor]
Choice = TypeVar("Choice")


def supported_outputs(config: PretrainedConfig) -> frozenset[str]:
    """Which of `ALL_OUTPUTS` a model of this config can give; a student says less in its config class."""
    return getattr(config, "supported_outputs", ALL_OUTPUTS)


@dataclass
class Answer(SequenceClassifierOutput):
    """What a model said of a batch, as a loss reads it.

    The tuples have one entry a matched pair of layers: entry i of the student's and entry i of the teacher's
    belong together, whatever layers they come from. Matching and mapping happen before a loss is called.

    Args:
        logits: ``[B, C]``.
        hidden_states: ``[B, d]`` each for a loss of level "sentence", ``[B, L, d]`` for "token"; padded
            positions hold anything.
        queries, keys, values: ``[B, H, L, d_head]`` each, of H heads.
        variances: ``[d]`` each, > 0, on the student's side: for a loss that `needs_variances`.
    """

    queries: tuple[Tensor, ...] | None = None
    keys: tuple[Tensor, ...] | None = None
    values: tuple[Tensor, ...] | None = None
    variances: tuple[Tensor, ...] | None = None


class Loss(nn.Module, ABC):
    """A transfer term. It owns no parameters; projections live with the method.

    Args:
        weight: factor of this term within the transfer part of the objective, >= 0.

    Raises:
        KDError: an option is outside its range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    """Which model outputs the term reads, out of `ALL_OUTPUTS`."""

    weighs_rows: ClassVar[bool] = False
    """Whether the term is a mean over rows that follows ``batch["row_weights"]``."""

    tempered: ClassVar[bool] = False
    """Whether the term has a ``temperature``, a number or a scalar tensor, that a schedule may move."""

    highest_temperature: float = math.inf
    """What a schedule may raise the temperature to."""

    teaches_back: bool = False
    """Whether gradient reaches the teacher too; only joint training sets it."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = number("weight", weight, "a number >= 0", lambda value: value >= 0)

    @abstractmethod
    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        """The unweighted term, a scalar, in float32 at least; mixed precision is off and the teacher detached."""

    @final
    def forward(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        """`term`, in full precision, with gradient to the student only."""
        with torch.autocast(student.logits.device.type, enabled=False):
            return self.term(student, teacher if self.teaches_back else detached(teacher), batch)

    @property
    def is_mean_over_rows(self) -> bool:
        """Whether a batch's term is the mean of its rows' own, so that parts of a batch add up to the whole."""
        return True

    def degenerate(self, num_labels: int) -> str | None:
        """What is left of the term with so few labels, as a sentence; None where nothing is lost."""
        return None


class FeatureLoss(Loss, ABC):
    """A term on hidden states or attention, pair by pair of matched layers.

    Args:
        level: "sentence" for one vector a text, "token" for one a token; the latter needs both models to
            read the same tokens.
        layers: the pairs that this term reads, a rule or a list as for ``method.layers``; None: that one.
        weight: factor of this term within the transfer part of the objective, >= 0.
    """

    needs = frozenset({"hidden_states"})

    same_width: ClassVar[bool] = False
    """Whether the two sides of a pair must be equally wide, so that a mapper stands between them."""

    needs_variances: ClassVar[bool] = False
    """Whether the term reads ``student.variances``."""

    levels: ClassVar[tuple[str, ...]] = ("sentence", "token")
    """At which levels the term makes sense."""

    def __init__(self, level: str = "sentence", layers: str | list | None = None, weight: float = 1.0):
        super().__init__(weight)
        self.level = option("level", level, self.levels)
        self.layers = layers

    @property
    def is_mean_over_rows(self) -> bool:
        return self.level == "sentence"

    def mismatch(self, student: PretrainedConfig, teacher: PretrainedConfig) -> str | None:
        """Why the term cannot compare these two models, as a clause; None where it can."""
        return None


def detached(answer: Answer) -> Answer:
    """The same answer without its graph."""
    return type(answer)(
        **{
            name: tuple(part.detach() for part in value) if isinstance(value, tuple) else value.detach()
            for name, value in answer.items()
        }
    )


def precise(tensor: Tensor) -> Tensor:
    """The tensor in float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def number(name: str, value: float, expected: str, is_valid: Callable[[float], bool]) -> float:
    """The value of an option that must be a number.

    Raises:
        KDError: naming the option, its range and what was found.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (is_number and is_valid(value)):
        raise OptionError(name, expected, value)
    return value


def option(name: str, value: Choice, choices: Collection[Choice]) -> Choice:
    """The value of an option that must be one of several.

    Raises:
        KDError: listing the choices.
    """
    if value not in list(choices):
        listed = " or ".join(str(choice) for choice in choices)
        raise OptionError(name, listed, value)
    return value
