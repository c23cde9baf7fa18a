"""What a run computes on, by its configuration: how large a step is, and what cannot go together. Needs no torch."""

from __future__ import annotations

from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

COMPARES_GRADIENTS = ("kd.methods.weighting.GradNorm", "kd.methods.weighting.PCGrad")


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


def contradictions(config: DictConfig) -> list[str]:
    """What the strategy of the run cannot do, a sentence each."""
    kinds = [node.get("_target_", "").rpartition(".")[2] for node in config.callbacks.values()]
    mistakes = []
    if is_sharded(config):
        if any(kind.endswith("WeightAveraging") for kind in kinds):
            mistakes.append("trainer=fsdp holds no whole model to average; leave out callbacks ema, or use trainer=ddp")
        if config.compile:
            mistakes.append("compile=true and trainer=fsdp were never tried together; set compile=false")
        if config.balance.weighting.get("_target_") in COMPARES_GRADIENTS:
            mistakes.append(
                "this balance/weighting compares gradients of whole models, and trainer=fsdp has none; use "
                "balance/weighting=constant or uncertainty, or trainer=ddp"
            )
    if "deepspeed" in _strategy(config).lower() and "ModelCheckpoint" in kinds:
        mistakes.append(
            "DeepSpeed writes folders that kd neither resumes from nor takes the best epoch from; set "
            "callbacks=[progress] to keep the weights of the last step, or use trainer=fsdp"
        )
    return mistakes
