"""Make the optimizer: the kernel of AdamW and Adam on the CPU, and row-wise updates of tables with sparse gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Adam, AdamW, Optimizer, SparseAdam

from kd.errors import KDError


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
    kept = [{**saved, "fused": own["fused"]} if "fused" in own else saved for saved, own in groups]
    return {**state, "param_groups": kept}


class WithTables(Optimizer):
    """AdamW or Adam for most weights, and SparseAdam for tables, of which a step updates only the rows with a gradient.

    To Lightning, schedules and checkpoints it is one optimizer with the groups of both.

    Args:
        dense: the optimizer of all other weights, whose betas and eps hold for the tables too.
        tables: parameter groups of tables.

    Raises:
        KDError: ``dense`` is another kind of optimizer.
    """

    def __init__(self, dense: Optimizer, tables: list[dict]):
        if not isinstance(dense, Adam):  # of which AdamW is a kind
            raise KDError(
                f"a table with sparse gradients is trained by Adam, got {type(dense).__name__}; use optim=adamw, or "
                "student.sparse=false"
            )
        options = {name: dense.defaults[name] for name in ("lr", "betas", "eps")}
        self.parts = (dense, SparseAdam(tables, **options))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Give both parts the groups and the state of the whole."""
        dense, tables = self.parts
        count = len(dense.param_groups)
        dense.param_groups, tables.param_groups = self.param_groups[:count], self.param_groups[count:]
        dense.state = tables.state = self.state = defaultdict(dict, self.state)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all weights that have a gradient, after the closure."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self._share()


def with_tables(module: nn.Module, groups: list[dict], make: Callable[[list[dict]], Optimizer]) -> Optimizer:
    """Make an optimizer of parameter groups, with row-wise updates of those tables that have sparse gradients."""
    sparse = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding) and part.sparse}
    dense, tables = (
        [{**group, "params": kept} for group in groups if (kept := _of(group["params"], sparse, wanted))]
        for wanted in (False, True)
    )
    optimizer = use_fused_kernel(make(dense))
    if not tables:
        return optimizer
    allowed = ("params", "lr")  # SparseAdam has no weight decay
    whole = WithTables(optimizer, [{name: group[name] for name in allowed if name in group} for group in tables])
    whole.register_load_state_dict_pre_hook(_keep_kernel)
    return whole


def _of(parameters: Iterable[nn.Parameter], sparse: set[int], wanted: bool) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if (id(parameter) in sparse) is wanted]


def clip_with_tables(optimizer: Optimizer, value: float, algorithm: str) -> None:
    """Clip all gradients together; torch's own functions read no sparse ones.

    Args:
        optimizer: whose gradients are scaled in place.
        value: the largest norm, or with "value" the largest number.
        algorithm: "norm" or "value".
    """
    stand_ins = []
    for parameter in (each for group in optimizer.param_groups for each in group["params"] if each.grad is not None):
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()  # of a row that occurs twice, the sum counts
            values = parameter.grad.values()
            parameter = nn.Parameter(torch.empty_like(values))
            parameter.grad = values
        stand_ins.append(parameter)
    clip = clip_grad_value_ if algorithm == "value" else clip_grad_norm_
    clip(stand_ins, value)
