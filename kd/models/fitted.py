"""Students that are fitted in closed form, without an optimizer step: their base, and the majority."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.data.batching import Ragged
from kd.errors import KDError
from kd.losses.label import label_loss
from kd.models.base import OwnConfig, token_mask


@dataclass(frozen=True)
class Rows:
    """Rows with their targets.

    Args:
        tokens: the ids of N rows.
        targets: ``[N, C]``: how much each row counts for each class. A gold label is 1 for its class and 0 elsewhere.
    """

    tokens: Ragged
    targets: np.ndarray


class FittedConfig(OwnConfig):
    """The options of every student that is fitted in closed form."""

    supported_outputs: ClassVar[frozenset[str]] = frozenset({"logits"})


class FittedStudent(PreTrainedModel, ABC):
    """A classifier whose weights are computed from all rows at once. Padding changes no logit."""

    config: FittedConfig

    @abstractmethod
    def fit(self, train: Rows, validation: Rows, special: frozenset[int]) -> None:
        """Compute the weights.

        Args:
            train: rows with gold or soft targets; each has a target above 0.
            validation: rows with gold targets, for the choices that the training rows cannot make.
            special: ids of tokens that are no words.

        Raises:
            KDError: these rows cannot be fitted.
        """

    @abstractmethod
    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return ``[B, C]`` for token ids ``[B, L]`` and their bool mask, with L at least 1."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **ignored: Any,
    ) -> SequenceClassifierOutput:
        """Classify; see `kd.models.base.Student.forward`. Further arguments are ignored.

        Raises:
            KDError: there are no ``input_ids``.
        """
        if input_ids is None:
            raise KDError(f"student '{self.config.model_type}': expected input_ids, found none; give the ids of tokens")
        if input_ids.shape[1] == 0:  # the tokenizer returns a batch of empty texts as a float tensor without columns
            input_ids = input_ids.new_full((len(input_ids), 1), self.config.pad_token_id)
            attention_mask = torch.zeros_like(input_ids)
        mask = token_mask(attention_mask, input_ids, None, self.config.pad_token_id)
        logits = self.logits(input_ids.long(), mask)
        return SequenceClassifierOutput(loss=None if labels is None else label_loss(logits, labels), logits=logits)

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the weights at 0, until `fit` computes them."""


class MajorityConfig(FittedConfig):
    """The majority has no options of its own."""

    model_type = "kd-majority"


class Majority(FittedStudent):
    """Answer every text with the shares of the classes among the training rows: the floor of every table."""

    config_class = MajorityConfig

    def __init__(self, config: MajorityConfig):
        super().__init__(config)
        self.bias = nn.Parameter(torch.zeros(cast(int, config.num_labels)))
        self.post_init()

    def fit(self, train: Rows, validation: Rows, special: frozenset[int]) -> None:
        counts = train.targets.sum(axis=0) + 1e-6  # a class without a row has a finite logit too
        self.bias.data = torch.from_numpy(np.log(counts / counts.sum())).float()

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.bias.expand(len(ids), -1)
