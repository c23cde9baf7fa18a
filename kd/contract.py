"""What teachers, students, batches and losses promise each other.

A *batch* is a dict of tensors: ``input_ids`` and ``attention_mask`` ``[B, L]``, ``labels`` ``[B]``
(-100 where there is none), ``index`` ``[B]`` (row number in its split); ``teacher_input_ids`` and
``teacher_attention_mask`` where a live teacher reads another tokenizer; ``teacher_logits`` ``[B, C]``
where the cache answers.

A *model*, teacher or student, is a ``transformers.PreTrainedModel`` that returns a
``SequenceClassifierOutput(logits, hidden_states, attentions)``.

A *loss* is a `Loss`: ``forward(student, teacher, batch)``, always in that order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

IGNORED_LABEL = -100
"""The label of a row without one; torch's cross-entropy skips it."""

ALL_OUTPUTS = frozenset({"logits", "hidden_states", "attentions"})

Batch = dict[str, Tensor]


def supported_outputs(config: PretrainedConfig) -> frozenset[str]:
    """Which of `ALL_OUTPUTS` a model of this config can give; a student says less in its config class."""
    return getattr(config, "supported_outputs", ALL_OUTPUTS)


class Loss(nn.Module, ABC):
    """A transfer term. It owns no parameters; projections live with the method.

    Args:
        weight: factor of this term within the transfer part of the objective.
    """

    needs: frozenset[str] = frozenset({"logits"})
    """Which model outputs the term reads, out of `ALL_OUTPUTS`."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, student: SequenceClassifierOutput, teacher: SequenceClassifierOutput, batch: Batch) -> Tensor:
        """The unweighted term, a scalar, in float32; gradient reaches the student only."""

    def degenerate(self, num_labels: int) -> str | None:
        """What is left of the term with so few labels, as a sentence; None where nothing is lost."""
        return None
