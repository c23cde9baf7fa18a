"""Models that no single device holds: weights, gradients and optimizer states cut over the ranks (FSDP2).

Lightning's own `FSDPStrategy` wraps the whole method in one module and runs on GPUs only. `fully_shard` of torch works
in place, on any backend: what each model computes and what its weights are called stays as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, final

from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from torch import Tensor, nn
from torch.distributed import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


@final
class FullySharded(ModelParallelStrategy):
    """Each rank holds its part of every model that the method has, whole layers only while they compute.

    Checkpoints are whole and in one file, as every other strategy writes and reads them.

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
        """The ranks."""
        return self.device_mesh["data_parallel"]

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return whole_state(self.lightning_module)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state = ParallelStrategy.optimizer_state(self, optimizer)
        return {**state, "state": {key: _whole(values) for key, values in state["state"].items()}}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        method = self.lightning_module
        own = method.state_dict()
        method.load_state_dict({name: _cut(value, own.get(name)) for name, value in checkpoint["state_dict"].items()})

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            cut = {
                key: {name: _cut(value, parameters[key]) for name, value in values.items()}
                for key, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": cut})


def shard(models: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Cut models over the ranks of a mesh: each transformer layer is gathered by itself, the rest with its model."""
    for model in models:
        if isinstance(model, FSDPModule):
            continue
        for layer in transformer_layers(model):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)


def sharded_copy(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """A copy that is cut over the ranks."""
    model = copy.deepcopy(model)
    shard([model], mesh)
    return model


def transformer_layers(model: nn.Module) -> Iterator[nn.Module]:
    """What transformers says must stay on one device together, such as a ``BertLayer``; none in other models."""
    names = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    return (part for part in model.modules() if type(part).__name__ in names and part is not model)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module of which each rank holds a part, on the CPU; all ranks must ask together."""
    return _whole(module.state_dict())


def _whole(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.full_tensor().cpu() if isinstance(value, DTensor) else value for name, value in state.items()}


def _cut(value: Any, like: Tensor | None) -> Any:
    """This rank's part of a whole tensor, if it belongs to one that is cut."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or isinstance(value, DTensor):
        return value
    if value.shape != like.shape:  # such as a count of steps
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
