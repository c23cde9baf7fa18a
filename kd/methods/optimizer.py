"""Choose the kernel of AdamW and Adam on the CPU, where the configuration leaves the choice to kd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer


def use_fused_kernel(optimizer: Optimizer) -> Optimizer:
    """Make AdamW and Adam update all weights on the CPU in one pass (torch's ``fused``), where nothing forbids it.

    A ``fused`` that is not None stays as it is, and so does every other optimizer. On a GPU torch chooses.

    The kernel is set in the parameter groups. ``fused=True`` as an argument would also let the optimizer read the loss
    scale, and Lightning then refuses gradient clipping under mixed precision.
    """
    if type(optimizer) not in (Adam, AdamW):
        return optimizer
    for group in optimizer.param_groups:
        chosen = group["fused"] is not None or any(group[key] for key in ("foreach", "capturable", "differentiable"))
        if not chosen and all(_is_plain(parameter) for parameter in group["params"]):
            group["fused"] = True
    optimizer.register_load_state_dict_pre_hook(_keep_kernel)
    return optimizer


def is_fused(optimizer: Optimizer) -> bool:
    """Return whether some of the optimizer's groups have the fused kernel."""
    return any(group.get("fused") for group in optimizer.param_groups)


def _is_plain(parameter: Tensor) -> bool:
    """Return whether the kernel can update it: a part of a sharded weight is a `DTensor`, which it does not know."""
    kind = type(parameter) in (nn.Parameter, Tensor)
    return kind and parameter.device.type == "cpu" and parameter.dtype in (torch.float32, torch.float64)


def _keep_kernel(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Keep the kernel of this process: the checkpoint may be of another device, or of a kd that chose another one."""
    groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
    return {**state, "param_groups": [{**saved, "fused": own["fused"]} for saved, own in groups]}
