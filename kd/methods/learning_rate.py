"""Learning-rate schedules, counted in optimizer steps."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler
from transformers.trainer_utils import SchedulerType

from kd.errors import KDError

SCALES = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}
"""How the learning rate may follow the global batch: the power of their ratio."""


def warm_up_and_decay(optimizer: Optimizer, total_steps: int, decay: str, warm_up: float) -> LRScheduler:
    """Linear warm-up from 0, then the named decay.

    Args:
        optimizer: its learning rate is the peak.
        total_steps: optimizer steps of the whole run.
        decay: ``linear`` or ``cosine`` (both to 0), or ``constant``.
        warm_up: share of the steps, in [0, 1).

    Raises:
        KDError: for an unknown decay or a share outside [0, 1).
    """
    names = {
        "linear": SchedulerType.LINEAR,
        "cosine": SchedulerType.COSINE,
        "constant": SchedulerType.CONSTANT_WITH_WARMUP,
    }
    if decay not in names:
        raise KDError(f"decay: expected one of {', '.join(names)}, got '{decay}'")
    if not 0 <= warm_up < 1:
        raise KDError(f"warm_up: expected a share of the steps in [0, 1), got {warm_up}")
    warm_up_steps = round(warm_up * total_steps)
    return get_scheduler(names[decay], optimizer, warm_up_steps, total_steps)


def rate_factor(scale: str, global_batch: int, reference: int) -> float:
    """What a learning rate that was found for a reference batch is multiplied by for another global batch.

    Args:
        scale: ``none`` (1), ``linear`` (global_batch / reference) or ``sqrt`` (its root).
        global_batch: rows of an optimizer step, over accumulated batches and all ranks.
        reference: rows of the step that the learning rate is meant for.

    Raises:
        KDError: another scale.

    Source: linear: Goyal et al. 2017, https://arxiv.org/abs/1706.02677; the root, for Adam: Malladi et al. 2022,
    https://arxiv.org/abs/2205.10287

    >>> rate_factor("linear", 256, 64), rate_factor("sqrt", 256, 64), rate_factor("none", 256, 64)
    (4.0, 2.0, 1.0)
    """
    if scale not in SCALES:
        raise KDError(f"optim.scale: expected {', '.join(SCALES)}, got '{scale}'")
    return (global_batch / reference) ** SCALES[scale]
