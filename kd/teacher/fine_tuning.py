"""Train a teacher on the devices of this machine, and store it: the runs that need it later read it from the disk."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import lightning
import torch
from datasets import Dataset
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedTokenizerBase

from kd.data.batching import EncodedSplit, Ragged, in_slices, labels_of
from kd.data.module import TextDataModule
from kd.errors import KDError, TrainingFailed
from kd.losses.label import LabelLoss
from kd.methods.base import Method, Recipe, copies, require_trained, run_fit
from kd.methods.learning_rate import warm_up_and_decay
from kd.methods.sharding import FullySharded, whole_state
from kd.options.declared import CheckedFields, Count, NotNegative, Positive, Probability, Seed
from kd.run.identity import LATER_OF_TEACHERS
from kd.runtime import ranks
from kd.runtime.devices import Devices, wants_gpu
from kd.runtime.progress_bar import ProgressBar
from kd.runtime.silence import quiet
from kd.storage import records
from kd.storage.checksum import digest
from kd.storage.files import built_beside
from kd.storage.locks import lock
from kd.storage.model_folder import folder_checksum
from kd.teacher.cache import texts_hash
from kd.teacher.ready import WithoutCaches
from kd.teacher.recipe import LastWeights

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of the hash of every trained teacher: a new number makes all of them train again."""


class Trainee(NamedTuple):
    """What is trained: a method with its model, the batches of one device, and what is stored with the model."""

    method: Method
    data: TextDataModule
    tokenizer: PreTrainedTokenizerBase
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SingleTeacher(CheckedFields, WithoutCaches, ABC):
    """A teacher of one model, which is trained once and stored under a hash of everything that affects its weights.

    It is trained by AdamW, with a linear warm-up and a linear decay to 0. The weights of the last step are kept, or the
    average of several steps.

    Args:
        epochs: passes over the training rows.
        batch_size: rows of an optimizer step, over all devices together.
        learning_rate: the peak of the learning rate.
        weight_decay: of AdamW.
        warm_up: share of the optimizer steps in which the learning rate rises from 0.
        gradient_clip: largest norm of the gradient; 0 clips nothing.
        precision: of the training, as ``lightning.Trainer`` names it; 16-mixed needs a GPU.
        seed: of the training; it is not the run's seed, so that runs with different seeds share a teacher.
        labelling_batch_size: rows of a batch when the trained model only gives outputs.
        average: share of the last optimizer steps whose weights are averaged; 0 keeps those of the last step.
    """

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: NotNegative
    warm_up: Probability
    gradient_clip: NotNegative
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"]
    seed: Seed
    labelling_batch_size: Count
    average: Probability = 0.0

    has_words: ClassVar[bool] = True
    recipe_names: ClassVar[tuple[str, ...]]
    """The options that affect the weights."""

    @property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @abstractmethod
    def tokens(self, texts: Sequence[str]) -> Ragged: ...

    def sources(self, chosen: str | None = None) -> dict[str, Self]:
        if chosen not in (None, "all"):
            raise KDError(
                f"method.features_from={chosen} names a member of an ensemble, and there is one teacher; leave it null"
            )
        return {"": self}

    def _recipe(self) -> dict[str, Any]:
        """Return the options that affect the weights; a later one only if it is used, so that names stay."""
        found = {name: getattr(self, name) for name in self.recipe_names}
        return {name: value for name, value in found.items() if (name, value) not in LATER_OF_TEACHERS.items()}

    def _hash(self, train: Dataset, label_names: Sequence[str], **facts: Any) -> str:
        """Return the name of the trained model: a hash of the recipe, the training rows and further facts."""
        rows = row_hashes(train) | {"label_names": label_names}
        return digest({"format": FORMAT, **rows, **self._recipe(), **facts})[:20]

    def _encoded(self, split: Dataset) -> EncodedSplit:
        return EncodedSplit(self.tokens(split["text"]), labels_of(split), self.tokenizer.pad_token_id)

    def _trainee_of(
        self,
        method: Callable[..., Method],
        train: EncodedSplit,
        validation: Dataset,
        batch_size: int,
        name: str,
        optimizer: Callable[..., Optimizer] = AdamW,
    ) -> Trainee:
        """Return a method, which has a model already, with its optimizer and rows."""
        data = TextDataModule(train, self._encoded(validation), batch_size, self.seed)
        optimizer = partial(optimizer, lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = partial(warm_up_and_decay, decay="linear", warm_up=self.warm_up)
        facts = {"name": name, "rows": len(train), **self._recipe()}
        return Trainee(method(Recipe(LabelLoss(), optimizer, schedule, self.seed)), data, self.tokenizer, facts)


def row_hashes(split: Dataset) -> dict[str, str]:
    """Return a hash of the texts of a split, and one of its labels."""
    labels = hashlib.sha256(labels_of(split).tobytes()).hexdigest()
    return {"texts": texts_hash(in_slices(split["text"])), "labels": labels}


RECIPE = tuple(field.name for field in fields(SingleTeacher) if field.name != "labelling_batch_size")


def train_teacher(make: Callable[[int], Trainee], folder: Path, recipe: SingleTeacher, on: Devices) -> None:
    """Train a teacher; write it to ``folder/model`` and its facts to ``folder/teacher.json``.

    An optimizer step always reads ``recipe.batch_size`` rows. They are divided evenly among the devices. If this is not
    possible with all devices, fewer devices train; see `sharers`.

    Args:
        make: (rows of a batch on one device) -> what is trained. The process of each device calls it. For several
            devices it must be picklable.
        folder: an existing folder.
        recipe: of the training.
        on: the devices of this machine.

    Raises:
        KDError: training failed in one of the processes.
    """
    if recipe.average and on.sharded and on.count > 1:
        raise KDError(
            f"teacher.average={recipe.average:g} reads whole weights, and trainer=fsdp divides them; set it to 0"
        )
    count = sharers(recipe.batch_size, on.count, torch.cuda.device_count() if on_cuda(on) else on.count)
    if on.count > 1:
        log.info("teacher: trained by %d of %d devices, %d rows each", count, on.count, recipe.batch_size // count)
    work = partial(_train, make, folder, recipe, Devices(on.accelerator, count, on.sharded))
    with ranks.alone():
        if count == 1:
            work()
        else:
            _in_processes(work, count, folder)
    facts = records.read(folder / "teacher.json", records.TrainedTeacher)
    log.info("teacher: validation accuracy %.3f after %.0f s", facts["validation_accuracy"], facts["training_seconds"])


def on_cuda(on: Devices) -> bool:
    """Return whether these devices are CUDA GPUs."""
    return wants_gpu(on.accelerator) and torch.cuda.is_available()


def sharers(rows: int, wanted: int, found: int) -> int:
    """Return the largest number of devices among which the rows of a step can be divided evenly.

    Args:
        rows: of a step.
        wanted: number of devices that the configuration names.
        found: number of devices that this process may use; a scheduler may give each rank only one.

    >>> sharers(32, 3, 8), sharers(32, 8, 8), sharers(32, 8, 1)
    (2, 8, 1)
    """
    return max(number for number in range(1, min(wanted, found) + 1) if rows % number == 0)


def _in_processes(work: Callable[[], None], count: int, folder: Path) -> None:
    """Do the work in several processes, one for each rank of a Trainer; they end with this process."""
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "NODE_RANK": "0"}
    threads = max(1, torch.get_num_threads() // count)
    arguments = (work, {**places, "WORLD_SIZE": str(count)}, threads, folder, os.getpid())
    context = start_processes(_rank, arguments, nprocs=count, join=False, start_method="spawn")
    try:
        while not context.join():
            pass
    except (ProcessRaisedException, ProcessExitedException) as error:
        reason = ranks.read_failure(folder) or error
        kind = TrainingFailed if TrainingFailed.__name__ in str(error) else KDError
        raise kind(f"training a teacher over {count} devices failed: {reason}") from error
    finally:
        for process in context.processes:
            process.kill()
            process.join()


def _rank(number: int, work: Callable[[], None], environment: dict[str, str], threads: int, folder: Path, parent: int):
    """Do the work of one rank in its own process."""
    ranks.die_with_parent(parent)
    quiet()
    os.environ.update({**environment, "LOCAL_RANK": str(number)})
    torch.set_num_threads(threads)
    try:
        work()
    except BaseException as error:
        said = str(error) if isinstance(error, KDError) else f"{type(error).__name__}: {error}"
        ranks.write_failure(folder, number, said)
        raise
    torch.distributed.destroy_process_group()


def _train(make: Callable[[int], Trainee], folder: Path, recipe: SingleTeacher, on: Devices) -> None:
    """Train in this process, which is the only one or one of several ranks."""
    lightning.seed_everything(recipe.seed, verbose=False)
    trainee, sharded = make(recipe.batch_size // on.count), on.sharded and on.count > 1
    trainer = lightning.Trainer(
        accelerator=on.accelerator,
        devices=on.count,
        strategy="auto" if on.count == 1 else FullySharded() if sharded else "ddp_find_unused_parameters_true",
        plugins=[LightningEnvironment()] if on.count > 1 else None,  # and not the cluster of the run
        max_epochs=recipe.epochs,
        precision=recipe.precision,
        gradient_clip_val=recipe.gradient_clip,
        use_distributed_sampler=False,
        logger=CSVLogger(folder, name="", version=""),
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        inference_mode=not sharded,
        callbacks=[ProgressBar(), *([LastWeights(recipe.average)] if recipe.average else [])],
    )
    trainee.data.require_rows(on.count)
    start, before = time.perf_counter(), copies(trainee.method)
    run_fit(trainer, trainee.method, trainee.data)
    seconds = time.perf_counter() - start
    if not sharded:  # otherwise each rank has only pieces of the weights
        require_trained(trainee.method, before, trainer.global_step)
    student = trainee.method.student
    weights = whole_state(student) if sharded else student.to("cpu").state_dict()
    if not trainer.is_global_zero:
        return
    student.eval().save_pretrained(folder / "model", state_dict=weights)
    trainee.tokenizer.save_pretrained(folder / "model")
    measured = {
        "checksum": folder_checksum(folder / "model"),
        "validation_accuracy": float(trainer.callback_metrics["val/accuracy"]),
        "training_seconds": round(seconds, 2),
    }
    records.write(folder / "teacher.json", trainee.facts | measured)


def stored(folder: Path, key: str, train: Callable[[Path], None]) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a trained model, and its facts; train it first if it is missing or damaged.

    One process trains while the others wait for its lock.

    Args:
        folder: contains all trained teachers.
        key: a hash of everything that affects the weights.
        train: (folder) -> None; trains the teacher and writes it into the folder.
    """
    place = folder / key
    place.parent.mkdir(parents=True, exist_ok=True)
    with lock(place):
        if place.exists() and _damaged(place):
            log.warning("the teacher in %s is damaged: it is trained again", place)
            shutil.rmtree(place)
        if place.exists():
            log.info(
                "teacher: found %s in %s", records.read(place / "teacher.json", records.TrainedTeacher)["name"], place
            )
        else:
            with built_beside(place) as building:
                train(building)
    return place / "model", records.read(place / "teacher.json", records.TrainedTeacher)


def _damaged(place: Path) -> bool:
    try:
        return records.read(place / "teacher.json", records.TrainedTeacher)["checksum"] != folder_checksum(
            place / "model"
        )
    except (KDError, OSError):
        return True
