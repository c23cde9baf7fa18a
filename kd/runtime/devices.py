"""The devices of a run according to its configuration, and the rows of an optimizer step. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf


@dataclass(frozen=True)
class Devices:
    """The devices of this machine that train a teacher and compute its outputs.

    Args:
        accelerator: as for ``lightning.Trainer``.
        count: number of devices.
        sharded: each device holds a piece of the model instead of a whole copy.
    """

    accelerator: str = "cpu"
    count: int = 1
    sharded: bool = False

    @classmethod
    def of(cls, config: DictConfig) -> Devices:
        """Return the devices of a run."""
        return cls(config.trainer.accelerator, config.trainer.devices, is_sharded(config))


ONE_CPU = Devices()


def wants_gpu(accelerator: str | None) -> bool:
    """Return whether this ``accelerator`` of ``lightning.Trainer`` uses a GPU if there is one."""
    return accelerator in ("auto", "gpu", "cuda")


def is_sharded(config: DictConfig) -> bool:
    """Return whether the run shards its models over the devices."""
    return _strategy(config).endswith("FullySharded")


def _strategy(config: DictConfig) -> str:
    """Return the strategy's name, or the name of its class."""
    strategy = config.trainer.strategy
    return str(strategy.get("_target_", "") if OmegaConf.is_dict(strategy) else strategy)


def global_batch(config: DictConfig) -> int:
    """Return the rows of an optimizer step, over accumulated batches and all ranks."""
    node = config.trainer
    return config.data.batch_size * node.accumulate_grad_batches * node.devices * node.num_nodes
