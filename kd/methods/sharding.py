"""Divide weights, gradients and optimizer states among the ranks (FSDP2), for models that fit on no single device.

Lightning's own `FSDPStrategy` wraps the whole method in one module and runs only on GPUs. `fully_shard` of torch works
in place and on any backend: neither the output of a model nor the names of its weights change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast, final

from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from torch import Tensor, nn
from torch.distributed import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


@final
class FullySharded(ModelParallelStrategy):
    """Each rank holds a part of every model of the method; a layer is gathered only while it computes.

    A checkpoint is one file with whole weights, as every other strategy writes and reads it.

    Args:
        timeout, process_group_backend: see `lightning.pytorch.strategies.ModelParallelStrategy`.
    """

    def __init__(self, **options: Any):
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False, **options)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def mesh(self) -> DeviceMesh:
        """Return the mesh of the ranks."""
        return self.device_mesh["data_parallel"]

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return whole_state(cast(LightningModule, self.lightning_module))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = ParallelStrategy.optimizer_state(self, optimizer)
        return {**state, "state": {key: _whole(values) for key, values in state["state"].items()}}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        method = cast(LightningModule, self.lightning_module)
        own, state = method.state_dict(), checkpoint["state_dict"]
        method.load_state_dict({name: _part(value, own.get(name)) for name, value in state.items()})

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            own = {
                key: {name: _part(value, parameters[key]) for name, value in values.items()}
                for key, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": own})


def shard(models: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Divide models among the ranks of a mesh; each transformer layer is gathered alone, the rest with its model."""
    for model in models:
        if isinstance(model, FSDPModule):
            continue
        # the names of classes that transformers does not split over devices, such as BertLayer
        names = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
        for layer in [part for part in model.modules() if type(part).__name__ in names and part is not model]:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the whole state of a sharded module, on the CPU. All ranks must call this together."""
    return _whole(module.state_dict())


def _whole(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.full_tensor().cpu() if isinstance(value, DTensor) else value for name, value in state.items()}


def _part(value: Any, like: Tensor | None) -> Any:
    """Return this rank's part of a whole tensor, if the tensor that it replaces is sharded."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or isinstance(value, DTensor):
        return value
    if value.shape != like.shape:  # such as a count of steps
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
