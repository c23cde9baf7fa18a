"""Declare the options that kd itself reads. Needs no torch.

Each class declares options at one place of the configuration. If there is a ``_target_`` at that place, the class or
function that it names declares the others. An option of Lightning or torch stands here too if kd allows fewer values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AllowInfNan

from kd.options.declared import (
    SIZES,
    Count,
    CountOrNone,
    Depth,
    NotNegative,
    Positive,
    Probability,
    Seed,
    Share,
    Spread,
    Temperature,
    TextLength,
    Width,
)

Metric = Literal["accuracy", "macro_f1", "balanced_accuracy", "auroc"]
METRICS: tuple[Metric, ...] = get_args(Metric)
Figure = Metric | Literal["latency", "parameters", "bytes"]


@dataclass
class Run:
    """The options at the top.

    Args:
        seed: seed of the student's initialisation, of the order of the batches and of dropout.
        alpha: share of the transfer terms, as in (1 - alpha) * label_loss + alpha * sum(weight_i * loss_i).
        temperature: divides the logits of both sides in soft-target terms, which are multiplied by its square.
        label_smoothing: part of the gold label's probability that is spread evenly over all labels.
        metric: figure that the best epoch, early stopping, pruning, a search and the report follow.
        class_weights: weight of a gold label in the label loss; balanced gives each class the same total weight, a
            list has one number for each label.
        resume: continue an interrupted run of the same directory from checkpoints/last.ckpt.
        rerun: train again even if the same run is already done in this directory.
        measure_test: read the test rows at the end; false leaves them unread until the same command is given with true.
        compile: use torch.compile for the student while it trains.
        threads: number of CPU threads of torch; null leaves the choice to torch.
        outputs: folder for runs, sweeps, teachers and the teacher cache.
        sweep: name of the folder of a sweep below outputs/sweeps.
        modules: your own Python modules that a _target_ may name; read from the command line only.
        objective: figure that a search compares, or a list of figures.
        peers: further students of method=joint, by name.
        loss: the transfer terms, by name.
        transfer: the steps that make texts for the transfer set, by name.
        transfer_seed: seed of these steps. It is not that of the run, so all seeds of a sweep share one transfer set.
        transfer_rows: largest number of texts that the steps add; null adds all, 0 makes none. A smaller set is a part
            of a larger one.
        callbacks: callbacks of Lightning, by name.
        logger: loggers of Lightning, by name.
        choices: the chosen files of the groups, by group; set by kd.
    """

    seed: Seed
    alpha: Share
    temperature: Temperature
    label_smoothing: Probability
    metric: Metric
    class_weights: Literal["none", "balanced"] | Annotated[list[Positive], MinLen(2)]
    resume: bool
    rerun: bool
    measure_test: bool
    compile: bool
    threads: Annotated[int, Ge(1), Le(1024)] | None
    outputs: str
    sweep: str
    modules: list[str]
    objective: Figure | Annotated[list[Figure], MinLen(1)]
    peers: dict[str, Any]
    loss: dict[str, Any]
    transfer: dict[str, Any]
    transfer_seed: Seed
    transfer_rows: CountOrNone | None
    callbacks: dict[str, Any]
    logger: dict[str, Any]
    choices: dict[str, Any]


@dataclass
class Cache:
    """The teacher cache.

    Args:
        use: read the teacher's outputs from disk; false runs the teacher at every step.
        max_gb: largest size of a split's stored features, in gigabytes; larger ones are refused.
    """

    use: bool
    max_gb: NotNegative


@dataclass
class Balance:
    """The balance of the terms, beside the groups ``balance/NAME``.

    Args:
        calibrate: scale each transfer term at the first step so that it starts at `weight` times the label loss.
    """

    calibrate: bool


@dataclass
class Selection:
    """Which rows without a label are kept after the teacher has labelled them; read by method=distillation.

    Args:
        rows: number of them to keep; null keeps all.
        by: random; those of which the teacher is most confident or most uncertain; or those about which it disagrees
            most with a student, by the Kullback-Leibler divergence.
        balanced: keep equally many rows of each label that the teacher gives, as far as there are so many.
        path: the student to compare with, a Hugging Face folder such as RUN/model.
    """

    rows: Count | None = None
    by: Literal["random", "confident", "uncertain", "disagreement"] = "random"
    balanced: bool = False
    path: str | None = None


@dataclass
class Data:
    """The options of ``data`` that every data set has. Those of a single one are parameters of its function.

    Args:
        name: name of the data set, in tables and folders.
        labelled: number of training rows that keep their label; null keeps all labels.
        shard_rows: number of rows in a shard of a streamed transfer set.
        max_length: largest number of tokens in a text of the student, two special tokens included.
        batch_size: rows in a batch on each device.
    """

    name: str
    shard_rows: Count
    max_length: TextLength
    batch_size: Count
    labelled: Count | None = None


@dataclass
class Optim:
    """The relation of the learning rate to the global batch.

    Args:
        scale: how the learning rate grows with the global batch.
        reference_batch: global batch, in rows, for which the learning rate is given.
        find: look for a learning rate around ``optimizer.lr`` before the training, and use it.
    """

    scale: Literal["none", "linear", "sqrt"]
    reference_batch: Count
    find: bool = False


@dataclass
class Optimizer:
    """The options of any optimizer.

    Args:
        lr: learning rate.
        weight_decay: weight decay of the matrices; biases and norms have none.
    """

    lr: Positive
    weight_decay: NotNegative


@dataclass
class Trainer:
    """The options of ``lightning.Trainer`` that kd reads or restricts.

    Args:
        accelerator: cpu, gpu, or auto for a GPU if there is one.
        devices: number of devices on each machine, which train together.
        num_nodes: number of machines.
        max_epochs: times that every row is read; null if max_steps is set.
        max_steps: optimizer steps after which training ends; -1 sets no such limit.
        accumulate_grad_batches: number of batches for each optimizer step.
        gradient_clip_val: largest norm of the gradient; null allows any.
        log_every_n_steps: steps between two points of a curve.
        limit_train_batches: batches in an epoch, as a number (1 or more) or as a share (below 1); null takes all.
        limit_val_batches: validation batches, in the same way.
        use_distributed_sampler: not available, as kd has its own sampler.
        barebones: not available, as kd keeps the curves of each run.
        fast_dev_run: not available, as kd keeps a model of each run; use trainer=debug.
        overfit_batches: not available, as kd has its own sampler; use data.limit.
        check_val_every_n_epoch: epochs between two validations.
    """

    accelerator: str
    devices: Annotated[int, Ge(1), Le(1024)]
    num_nodes: Annotated[int, Ge(1), Le(1024)]
    max_epochs: Count | None
    max_steps: Literal[-1] | Count
    accumulate_grad_batches: Count
    gradient_clip_val: NotNegative | None
    log_every_n_steps: Count
    limit_train_batches: Annotated[float, Gt(0), SIZES] | None
    limit_val_batches: Annotated[float, Gt(0), SIZES] | None
    use_distributed_sampler: Literal[False]
    barebones: Literal[False]
    fast_dev_run: Literal[False]
    overfit_batches: Literal[0]
    check_val_every_n_epoch: Count | None


@dataclass
class Transformer:
    """The sizes of a model of transformers, whose own configuration allows any number.

    Args:
        hidden_size, intermediate_size: width of the states and within the layers.
        dim, hidden_dim: the same under the names of DistilBERT.
        embedding_size: width of the word table.
        num_hidden_layers, n_layers: number of layers.
        num_attention_heads, n_heads: number of attention heads of a layer.
        max_position_embeddings: largest number of tokens in a text.
        hidden_dropout_prob, attention_probs_dropout_prob, dropout, attention_dropout: probability of dropping a number.
        initializer_range: standard deviation of the random weights.
    """

    hidden_size: Width
    intermediate_size: Width
    dim: Width
    hidden_dim: Width
    embedding_size: Width
    num_hidden_layers: Depth
    n_layers: Depth
    num_attention_heads: Width
    n_heads: Width
    max_position_embeddings: TextLength
    hidden_dropout_prob: Probability
    attention_probs_dropout_prob: Probability
    dropout: Probability
    attention_dropout: Probability
    initializer_range: Spread


@dataclass
class Rates:
    """The options of optimizers of torch, which allow any number.

    Args:
        eps: added to a denominator.
        rho, momentum: part of the running mean that is kept.
    """

    eps: Annotated[float, AllowInfNan(False), Ge(0), Le(1)]
    rho: Annotated[float, AllowInfNan(False), Ge(0), Lt(1)]
    momentum: Annotated[float, AllowInfNan(False), Ge(0), Lt(1)]


@dataclass
class Callback:
    """The options of callbacks of Lightning, which allow any number.

    Args:
        patience: validations without a better one after which training ends.
        decay: part of the averaged weights that is kept at each update.
        update_every_n_steps: steps between two updates of the average.
        save_top_k: number of checkpoints; -1 keeps all.
    """

    patience: CountOrNone
    decay: Annotated[float, AllowInfNan(False), Ge(0), Lt(1)]
    update_every_n_steps: Count
    save_top_k: Annotated[int, Ge(-1), SIZES]


SECTIONS: dict[str, type] = {
    "": Run,
    "cache": Cache,
    "balance": Balance,
    "selection": Selection,
    "data": Data,
    "optim": Optim,
    "optim.optimizer": Optimizer,
    "trainer": Trainer,
}
"""The declarations by their place in the configuration."""
