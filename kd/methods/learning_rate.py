"""Learning-rate schedules, counted in optimizer steps."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from kd.options.declared import checked

SCALES = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}
"""How the learning rate may depend on the global batch: the power of their ratio."""


@checked
def warm_up_and_decay(
    optimizer: Optimizer,
    total_steps: int,
    decay: Literal["linear", "cosine", "constant"],
    warm_up: Annotated[float, Ge(0), Lt(1)],
) -> LRScheduler:
    """Raise the learning rate from 0 in even steps, then let it decay.

    Args:
        optimizer: its learning rate is the peak.
        total_steps: optimizer steps of the whole run.
        decay: how the rate falls after the warm-up, to 0 at the end; constant: it does not fall.
        warm_up: share of the steps in which the rate rises.
    """
    name = "constant_with_warmup" if decay == "constant" else decay
    return get_scheduler(name, optimizer, round(warm_up * total_steps), total_steps)


def rate_factor(scale: str, global_batch: int, reference: int) -> float:
    """Return the factor that adapts a learning rate for the reference batch to another global batch.

    Args:
        scale: ``none`` (1), ``linear`` (global_batch / reference) or ``sqrt`` (its root).
        global_batch: rows of an optimizer step, over accumulated batches and all ranks.
        reference: rows of the step for which the learning rate is given.

    Source: linear: Goyal et al. 2017, https://arxiv.org/abs/1706.02677; the root, for Adam: Malladi et al. 2022,
    https://arxiv.org/abs/2205.10287

    >>> rate_factor("linear", 256, 64), rate_factor("sqrt", 256, 64), rate_factor("none", 256, 64)
    (4.0, 2.0, 1.0)
    """
    return (global_batch / reference) ** SCALES[scale]
