"""The options that no constructor takes: the keys of ``conf/config.yaml``, and what kd asks of Lightning and torch.

Each class declares one place of the configuration. Where a ``_target_`` stands at the same place, its own signature
declares the rest. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from kd.options.declared import Count, NotNegative, Positive, Probability, Seed, Share

Figure = Literal["accuracy", "macro_f1", "latency", "parameters", "bytes"]


@dataclass
class Run:
    """The keys at the top.

    Args:
        seed: of the student's initialisation, of the order of the batches and of dropout.
        alpha: share of the transfer terms: (1 - alpha) * label_loss + alpha * sum(weight_i * loss_i).
        temperature: divides the logits of both sides in soft-target terms, which are multiplied by its square.
        label_smoothing: probability that the gold label gives away to all labels alike.
        resume: continue an interrupted run of the same directory from checkpoints/last.ckpt.
        rerun: train again where the same run is already done in this directory.
        compile: use torch.compile for the student while it trains.
        threads: CPU threads of torch; null leaves the choice to torch.
        outputs: folder for runs, sweeps, teachers and the teacher cache.
        sweep: name of the folder of a sweep, below outputs/sweeps.
        modules: your own Python modules that a _target_ may name; read from the command line only.
        objective: what a search compares; a list for several.
        peers: further students of method=joint, by name.
        loss: the transfer terms, by name.
        callbacks: callbacks of Lightning, by name.
        logger: loggers of Lightning, by name.
    """

    seed: Seed
    alpha: Share
    temperature: Positive
    label_smoothing: Probability
    resume: bool
    rerun: bool
    compile: bool
    threads: Annotated[int, Ge(1), Le(1024)] | None
    outputs: str
    sweep: str
    modules: list[str]
    objective: Figure | list[Figure]
    peers: dict[str, Any]
    loss: dict[str, Any]
    callbacks: dict[str, Any]
    logger: dict[str, Any]


@dataclass
class Cache:
    """The teacher cache.

    Args:
        use: read the teacher's outputs from disk; false runs the teacher at every step.
        max_gb: refuse to store features of a split that take more gigabytes.
    """

    use: bool
    max_gb: NotNegative


@dataclass
class Balance:
    """What balances the terms, beside the groups below it.

    Args:
        calibrate: scale each transfer term at the first step so that it starts at `weight` times the label loss.
    """

    calibrate: bool


@dataclass
class Data:
    """The data, beside what ``data.source`` takes.

    Args:
        name: of the data set, in tables and folders.
        shard_rows: rows that are read at a time for one shard of a streamed transfer set.
        max_length: tokens after which the student's texts are truncated, the two special tokens included.
        batch_size: rows a batch on each device.
    """

    name: str
    shard_rows: Count
    max_length: Annotated[int, Ge(3)]
    batch_size: Count


@dataclass
class Optim:
    """The optimizer's surroundings.

    Args:
        scale: how the learning rate follows the global batch.
        reference_batch: global batch for which the learning rate is given.
    """

    scale: Literal["none", "linear", "sqrt"]
    reference_batch: Count


@dataclass
class Optimizer:
    """What any optimizer must be given.

    Args:
        lr: learning rate; at 0 nothing would be learnt.
        weight_decay: of the matrices; biases and norms have none.
    """

    lr: Positive
    weight_decay: NotNegative


@dataclass
class Trainer:
    """What kd asks of ``lightning.Trainer``, which declares the rest.

    Args:
        accelerator: cpu, gpu, or auto: a GPU where there is one.
        devices: devices on each machine; several train together.
        num_nodes: machines.
        max_epochs: times that every row is read; null with max_steps.
        max_steps: optimizer steps after which training ends; -1: no such limit.
        accumulate_grad_batches: batches for each optimizer step.
        gradient_clip_val: largest norm of the gradient; null: any.
        log_every_n_steps: steps between two points of a curve.
        limit_train_batches: batches an epoch: a number of them (1 or more) or a share (below 1); null: all.
        fast_dev_run: not with kd, which keeps a model of each run; use trainer=debug.
        overfit_batches: not with kd, which has a sampler of its own; use data.limit.
    """

    accelerator: str
    devices: Annotated[int, Ge(1), Le(1024)]
    num_nodes: Count
    max_epochs: Count | None
    max_steps: Literal[-1] | Count
    accumulate_grad_batches: Count
    gradient_clip_val: NotNegative | None
    log_every_n_steps: Count
    limit_train_batches: Positive | None
    fast_dev_run: Literal[False]
    overfit_batches: Literal[0]


SECTIONS: dict[str, type] = {
    "": Run,
    "cache": Cache,
    "balance": Balance,
    "data": Data,
    "optim": Optim,
    "optim.optimizer": Optimizer,
    "trainer": Trainer,
}
"""The declarations by their place in the configuration."""
