"""Two choices in the fine-tuning of a teacher: smaller steps for lower layers, and averaged weights."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn
from torch.optim import AdamW

from kd.errors import KDError

LAYER = re.compile(r"\.(?:layers?|h|blocks?)\.(\d+)\.")
"""The number of a layer in the name of a weight, in the encoders of transformers."""


def layer_scales(model: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return the factor of each weight's learning rate: ``decay ** (number of layers above the weight)``.

    The embeddings lie below the first layer. What is in no layer, such as the head, lies above the last.

    Source: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146; for encoders Clark et al. 2020,
    https://arxiv.org/abs/2003.10555

    Raises:
        KDError: the names of the weights number no layers.
    """
    numbers = {name: int(found[1]) for name, _ in model.named_parameters() if (found := LAYER.search(name))}
    if not numbers:
        raise KDError(
            f"teacher.layer_decay: expected a model with numbered layers, found none in {type(model).__name__}; set it "
            "to 1"
        )
    top = max(numbers.values())
    depths = {name: top - number + 1 for name, number in numbers.items()}
    return {
        parameter: decay ** depths.get(name, top + 2 if "embeddings." in name else 0)
        for name, parameter in model.named_parameters()
    }


def layerwise_adamw(
    groups: Iterable[Mapping[str, Any]], scales: Mapping[nn.Parameter, float], lr: float, weight_decay: float
) -> AdamW:
    """Return AdamW over these groups of parameters, each divided by the factors of the learning rate."""
    parts: dict[tuple[int, float], list[nn.Parameter]] = defaultdict(list)
    given = list(groups)
    for number, group in enumerate(given):
        for parameter in group["params"]:
            parts[number, scales.get(parameter, 1.0)].append(parameter)
    scaled = [{**given[number], "params": some, "lr": lr * scale} for (number, scale), some in parts.items()]
    return AdamW(scaled, lr=lr, weight_decay=weight_decay)


class LastWeights(WeightAveraging):
    """Average the weights after each of the last steps, and leave the average in the model.

    Source: Izmailov et al. 2018 (stochastic weight averaging), https://arxiv.org/abs/1803.05407

    Args:
        share: of the optimizer steps; at least the last step counts.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share, self.first = share, 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        steps = int(trainer.estimated_stepping_batches)
        self.first = min(math.ceil((1 - self.share) * steps), steps - 1)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= self.first

    def _swap_models(self, pl_module: lightning.LightningModule) -> None:
        if self._average_model is not None and self._average_model.n_averaged > torch.tensor(0):
            super()._swap_models(pl_module)
