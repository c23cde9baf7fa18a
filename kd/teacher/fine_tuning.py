"""Training of a model that will teach: once for all who ask, on the devices of this machine, kept by content."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes
from transformers import PreTrainedTokenizerBase

from kd.data.module import TextDataModule
from kd.errors import KDError
from kd.methods.base import Method, run_fit
from kd.methods.sharding import FullySharded, whole_state
from kd.runtime import ranks
from kd.runtime.devices import Devices
from kd.runtime.progress_bar import ProgressBar
from kd.runtime.silence import quiet
from kd.storage.files import read_json, write_json
from kd.storage.locks import lock, mark
from kd.storage.model_folder import folder_checksum

log = logging.getLogger(__name__)


class Trainee(NamedTuple):
    """What is trained.

    Args:
        method: holds the model.
        data: whose batch size is that of one device.
        tokenizer: is kept with the model.
        facts: are kept too.
    """

    method: Method
    data: TextDataModule
    tokenizer: PreTrainedTokenizerBase
    facts: dict


class TrainingRecipe(Protocol):
    """What a trainer of teachers is told."""

    epochs: int
    batch_size: int
    precision: str
    gradient_clip: float


def train_teacher(make: Callable[[int], Trainee], folder: Path, recipe: TrainingRecipe, on: Devices) -> None:
    """Train a model that will teach, and leave it in ``folder/model`` with its facts beside it.

    An optimizer step reads ``recipe.batch_size`` rows, however many devices share them: as many as divide it evenly.

    Args:
        make: (rows a batch and device) -> what is trained; each device has a process that calls it, so that it is
            pickled where there are several.
        folder: exists.
        recipe: of the training.
        on: the devices of this machine.

    Raises:
        KDError: training failed in one of the processes.
    """
    count = sharers(recipe.batch_size, on.count, torch.cuda.device_count() if on_cuda(on) else on.count)
    if on.count > 1:
        log.info("teacher: trained by %d of %d devices, %d rows each", count, on.count, recipe.batch_size // count)
    work = partial(_train, make, folder, recipe, Devices(on.accelerator, count, on.sharded))
    with ranks.alone():
        if count == 1:
            work()
        else:
            _in_processes(work, count, folder)
    facts = read_json(folder / "teacher.json")
    log.info("teacher: validation accuracy %.3f after %.0f s", facts["validation_accuracy"], facts["training_seconds"])


def on_cuda(on: Devices) -> bool:
    """Whether it happens on GPUs of CUDA."""
    return on.wants_gpu and torch.cuda.is_available()


def sharers(rows: int, wanted: int, found: int) -> int:
    """How many devices share the rows of a step evenly.

    Args:
        rows: of a step.
        wanted: devices.
        found: those that this process may use; a scheduler may give each rank one only.

    >>> sharers(32, 3, 8), sharers(32, 8, 8), sharers(32, 8, 1)
    (2, 8, 1)
    """
    return max(number for number in range(1, min(wanted, found) + 1) if rows % number == 0)


def _in_processes(work: Callable[[], None], count: int, folder: Path) -> None:
    """The same in processes of their own, the ranks of a Trainer each, which end with this one."""
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "NODE_RANK": "0"}
    threads = max(1, torch.get_num_threads() // count)
    arguments = (work, {**places, "WORLD_SIZE": str(count)}, threads, folder, os.getpid())
    context = start_processes(_rank, arguments, nprocs=count, join=False, start_method="spawn")
    try:
        while not context.join():
            pass
    except (ProcessRaisedException, ProcessExitedException) as error:
        reason = ranks.read_failure(folder) or error
        raise KDError(f"training a teacher over {count} devices failed: {reason}") from error
    finally:
        for process in context.processes:
            process.kill()
            process.join()


def _rank(number: int, work: Callable[[], None], environment: dict[str, str], threads: int, folder: Path, parent: int):
    """What such a process does."""
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


def _train(make: Callable[[int], Trainee], folder: Path, recipe: TrainingRecipe, on: Devices) -> None:
    """Train in this process, the only one or one of several ranks."""
    trainee, sharded = make(recipe.batch_size // on.count), on.sharded and on.count > 1
    trainer = lightning.Trainer(
        accelerator=on.accelerator,
        devices=on.count,
        strategy="auto" if on.count == 1 else FullySharded() if sharded else "ddp_find_unused_parameters_true",
        plugins=[LightningEnvironment()] if on.count > 1 else None,  # whatever has started the run
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
        callbacks=[ProgressBar()],
    )
    trainee.data.require_rows(on.count)
    start = time.perf_counter()
    run_fit(trainer, trainee.method, trainee.data)
    seconds = time.perf_counter() - start
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
    write_json(folder / "teacher.json", trainee.facts | measured)


def stored(folder: Path, key: str, train: Callable[[Path], None]) -> Path:
    """The teacher of this key: found in the folder, or trained by whoever asks first while the others wait.

    Args:
        folder: where trained teachers are kept.
        key: names all that decides the weights.
        train: leaves the teacher in the folder that it is given.
    """
    place = folder / key
    place.parent.mkdir(parents=True, exist_ok=True)
    with lock(place):
        for leftover in folder.glob(f"{place.name}.building-*"):
            shutil.rmtree(leftover)
        if _damaged(place):
            log.warning("the teacher in %s is damaged: it is trained anew", place)
            shutil.rmtree(place)
        if place.exists():
            log.info("teacher: found %s in %s", read_json(place / "teacher.json")["name"], place)
            return place
        building = place.with_suffix(f".building-{mark()}")
        building.mkdir()
        try:
            train(building)
            os.replace(building, place)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    return place


def _damaged(place: Path) -> bool:
    if not place.exists():
        return False
    try:
        return read_json(place / "teacher.json")["checksum"] != folder_checksum(place / "model")
    except (KDError, OSError, KeyError):
        return True
