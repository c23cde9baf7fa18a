"""What a run computes on, by its configuration: how large a step is, and what cannot go together. Needs no torch."""

from __future__ import annotations

from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf


class Devices(NamedTuple):
    """What of this machine trains teachers and answers for them.

    Args:
        accelerator: as for ``lightning.Trainer``.
        count: of them.
        sharded: a model is cut over them, where each would hold a whole copy otherwise.
    """

    accelerator: str = "cpu"
    count: int = 1
    sharded: bool = False

    @property
    def wants_gpu(self) -> bool:
        """Whether they are GPUs where there are some."""
        return wants_gpu(self.accelerator)

    @classmethod
    def of(cls, config: DictConfig) -> Devices:
        """Those of a run."""
        return cls(config.trainer.accelerator, config.trainer.devices, is_sharded(config))


ONE_CPU = Devices()


def wants_gpu(accelerator: str | None) -> bool:
    """Whether this ``accelerator`` of ``lightning.Trainer`` takes a GPU where there is one."""
    return accelerator in ("auto", "gpu", "cuda")


def is_sharded(config: DictConfig) -> bool:
    """Whether the run cuts its models over the devices."""
    return _strategy(config).endswith("FullySharded")


def _strategy(config: DictConfig) -> str:
    """By name, or by the name of its class."""
    strategy = config.trainer.strategy
    return strategy.get("_target_", "") if OmegaConf.is_dict(strategy) else str(strategy)


def global_batch(config: DictConfig) -> int:
    """Rows of an optimizer step, over accumulated batches and all ranks."""
    node = config.trainer
    return config.data.batch_size * node.accumulate_grad_batches * node.devices * node.num_nodes
