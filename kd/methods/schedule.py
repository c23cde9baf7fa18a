"""Learning-rate schedules, counted in optimizer steps."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler
from transformers.trainer_utils import SchedulerType

from kd.errors import KDError


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
