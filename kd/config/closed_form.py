"""Find what a student that is fitted in closed form, such as the bag, cannot do."""

from __future__ import annotations

from omegaconf import DictConfig

from kd.config.targets import plain
from kd.methods.base import Method
from kd.methods.distillation import Distillation
from kd.methods.supervised import Supervised


def of_closed_form(config: DictConfig, kind: type[Method]) -> list[str]:
    """Return what a student that is fitted in closed form cannot do, one sentence for each."""
    name = f"student={config.choices.student}"
    if kind not in (Distillation, Supervised):
        return [
            f"{name} is fitted in closed form, without hidden states or gradient, got method={config.choices.method}; "
            "choose method=supervised or method=distillation"
        ]
    mistakes = [
        f"method.{option} is about the training of a network, and {name} is fitted in closed form; leave it at 0"
        for option in ("r_drop", "mixup", "consistency", "fair_weights")
        if config.method.get(option)
    ]
    if config.data.get("stream"):
        mistakes.append(f"{name} is fitted to all rows at once; set data.stream=false")
    if config.trainer.devices * config.trainer.num_nodes > 1:
        mistakes.append(f"{name} is fitted by one process; set trainer.devices=1 and trainer.num_nodes=1")
    if kind is Distillation and not _has_plain_soft_targets(config):
        mistakes.append(
            f"{name} is fitted to soft targets, of which it reads alpha and temperature; leave loss=[soft_target] and "
            "the section balance as they are"
        )
    return mistakes


def _has_plain_soft_targets(config: DictConfig) -> bool:
    """Return whether loss and balance are the plain ones, and take alpha and temperature from the top."""
    own = {"temperature": config.temperature, "weight": 1.0}
    schedule = "kd.methods.schedules.Constant"
    balance = {
        "alpha": {"_target_": schedule, "value": config.alpha},
        "temperature": {"_target_": schedule, "value": config.temperature},
        "confidence": {"_target_": "kd.methods.confidence.EveryRow"},
        "weighting": {"_target_": "kd.methods.weighting.ConstantWeighting", "_partial_": True},
        "calibrate": False,
    }
    return plain(config.balance) == balance and list(plain(config.loss).values()) == [
        {"_target_": "kd.losses.logits.SoftTarget", **own}
    ]
