"""Train a student, measure it, and write its run directory."""

from __future__ import annotations

import copy
import logging
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from kd.assembly import Assembly, assemble
from kd.config import build
from kd.config.make import resolve
from kd.config.trainer import loggers, make_trainer
from kd.data.batching import EncodedSplit
from kd.data.module import TextDataModule
from kd.data.sources import Splits
from kd.errors import Pruned
from kd.measure.cost import Reader, latency, parameter_counts, speedup, times_in_turns
from kd.measure.energy import EnergyMeter
from kd.methods.base import Method, copies, require_trained, run_fit
from kd.methods.distillation import TaughtMethod
from kd.methods.joint import Joint
from kd.methods.optimizer import is_fused
from kd.methods.sharding import FullySharded, whole_state
from kd.models.bilstm import BiLSTM
from kd.models.fitted import FittedStudent
from kd.report import model_card
from kd.run.curves import join_curves
from kd.run.directory import RunDirectory
from kd.run.environment import KERNELS, environment
from kd.run.identity import flat
from kd.runtime import ranks
from kd.runtime.devices import global_batch
from kd.storage import hub
from kd.storage.files import write_json
from kd.storage.model_folder import load_classifier
from kd.training import tracking
from kd.training.closed_form import fit_closed_form
from kd.training.evaluation import evaluate
from kd.training.fitting import fitting
from kd.training.learning_rate import set_rate
from kd.training.pruning import Pruning
from kd.training.resume import row_checksums

log = logging.getLogger(__name__)


def train_student(
    config: DictConfig, run: RunDirectory, splits: Splits, checkpoint: Path | None
) -> tuple[dict[str, Any], list[Logger]]:
    """Train and measure a student, and write the run directory; return the content of ``metrics.json``, the loggers."""
    log.info("%s", splits.report())
    assembly, method, data = assembled(config, splits)
    described = environment() | facts(config, splits, assembly)
    write_json(run.path / "environment.json", described)
    fitted, used, made = fit(config, run, method, data, checkpoint)
    write_json(run.path / "environment.json", described | {"kernels": used})  # known only after the training

    student, tokenizer, max_length = method.student.eval(), assembly.tokenizer, config.data.max_length
    student.save_pretrained(run.model)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(run.model)
    for name, parts in assembly.models_to_keep().items():
        for part in parts:
            part.save_pretrained(run.path / "partners" / name)
    theirs = assembly.teacher_readers()
    sides = [[Reader(student, tokenizer, max_length)], *([theirs] if theirs else [])]
    times = times_in_turns(sides, splits.validation["text"][:200])
    figures = {
        **config.choices,
        "seed": config.seed,
        "global_batch": global_batch(config),
        **fitted,
        "padding_share": round(data.padding_share(), 4),
        "parameters": parameter_counts(student),
        "model_bytes": (run.model / "model.safetensors").stat().st_size,
        "latency": latency(times[0]),
        **assembly.figures(),
        **evaluate(run, student, assembly),
    }
    if not isinstance(student, FittedStudent):
        rows = data.train if isinstance(data.train, EncodedSplit) else assembly.encoded("train")
        if (rows.labels >= 0).any():
            figures["fitting"] = found = fitting(student, rows, figures, run.path, resolve(config))
            log.info("%s: %s", found["verdict"].replace("neither", "fit"), found["sentence"])
    if cost := assembly.teacher_cost():
        labelling = round(assembly.outputs.seconds.get("train", 0.0), 2) or None
        figures["teacher_cost"] = cost | {"labelling_seconds": labelling}
        if theirs:  # a file of answers has no latency
            figures["teacher_cost"]["latency"] = latency(times[1])
            figures["speedup"] = speedup(*times)
    write_json(run.metrics_file, figures)
    if config.get("measure_test", True):  # the card has the figures of the test rows
        model_card.write(run)
    return figures, made


def measure_test(config: DictConfig, run: RunDirectory, splits: Splits) -> None:
    """Measure a run that was trained with ``measure_test=false`` on its test rows too, as it would have been."""
    student = load_classifier(run.model, new_head=False).eval()
    figures = run.metrics() | evaluate(run, student, assemble(config, splits, build.teacher(config)))
    write_json(run.metrics_file, figures)
    model_card.write(run)


def train_rank(config: DictConfig, run: RunDirectory, splits: Splits, checkpoint: Path | None) -> None:
    """Train as `train_student` does, in a rank other than 0, which measures and writes nothing."""
    logging.getLogger("kd").setLevel(logging.ERROR)  # rank 0 logs the same
    _, method, data = assembled(config, splits)
    learn(make_trainer(config, run.path), method, data, checkpoint, config.compile)


def learn(
    trainer: lightning.Trainer, method: Method, data: TextDataModule, checkpoint: Path | None, compiled: bool
) -> None:
    """Train in every rank, and leave the weights of the last step in the method.

    Only a copy of the method is sharded or compiled, so that the rest of the program can read the method as before.

    Raises:
        KDError: there are fewer rows than ranks, so that some ranks would have an empty batch.
    """
    batches, devices = trainer.accumulate_grad_batches, trainer.world_size
    data.require_rows(devices)
    log.info(
        "global batch: %d rows in an optimizer step (%d on a device x %d accumulated x %d device%s)",
        *(data.batch_size * batches * devices, data.batch_size, batches, devices, "s"[: devices - 1]),
    )
    transfer = method.objective.transfer.items() if isinstance(method, (TaughtMethod, Joint)) else ()
    if apart := [name for name, loss in transfer if batches * devices > 1 and not loss.is_mean_over_rows]:
        log.info("computed on the %d rows of each batch, and then averaged: %s", data.batch_size, ", ".join(apart))
    learner = copy.deepcopy(method) if compiled or isinstance(trainer.strategy, FullySharded) else method
    if compiled:
        learner.student.compile(dynamic=True)  # in place, which keeps the names of the weights
    with ranks.observed():
        run_fit(trainer, learner, data, ckpt_path=checkpoint, weights_only=True)
    if learner is not method:
        method.load_state_dict(whole_state(learner))
    if torch.distributed.is_initialized():  # from here on rank 0 works alone
        torch.distributed.destroy_process_group()


def assembled(config: DictConfig, splits: Splits) -> tuple[Assembly, Method, TextDataModule]:
    """Make what training needs. The teacher is fine-tuned and labels the rows now, if no earlier run has done so."""
    if config.threads:
        torch.set_num_threads(config.threads)
    assembly = assemble(config, splits, build.teacher(config))
    method = assembly.method
    assembly.start()
    train, validation = assembly.train(), assembly.read("validation")
    tokenizers = {"the student's": assembly.tokenizer}
    if assembly.teacher and assembly.teacher.has_words:
        tokenizers["the teacher's"] = assembly.teacher.tokenizer
    texts = splits.train["text"]
    data = TextDataModule(train, validation, config.data.batch_size, config.seed, texts=texts, tokenizers=tokenizers)
    return assembly, method, data


def fit(
    config: DictConfig, run: RunDirectory, method: Method, data: TextDataModule, checkpoint: Path | None
) -> tuple[dict[str, Any], dict[str, int], list[Logger]]:
    """Train, then load the weights of the best epoch into the method.

    Returns:
        ``training_seconds`` from the first to the last step, with validation and over all resumptions; whether the
        ``weights`` are the best on validation, those of the last step or fitted in closed form; and the ``energy`` of
        the device since the last start, None if the hardware does not measure it. Second, the versions of the
        `kernels` that were used. Third, the loggers.

    Raises:
        Pruned: a search has stopped the run.
        KDError: the training has changed nothing.
    """
    if isinstance(method.student, FittedStudent):
        made = tracking.begin(loggers(config, run.path), resolve(config))
        return fit_closed_form(config, run, method, data), {}, made
    curves = run.path / "metrics.csv"
    if checkpoint and curves.exists():
        curves.rename(run.path / f"metrics.before-{time.time_ns()}.csv")  # otherwise the logger deletes it
    if not checkpoint:  # the optimizer of a checkpoint has its rate
        set_rate(config, run, method, data)
    trainer = make_trainer(config, run.path)
    ranks.send_ready()
    meter = EnergyMeter.of_this_machine(gpus=isinstance(trainer.accelerator, CUDAAccelerator))
    before = copies(method)
    tracking.begin(trainer.loggers, resolve(config))
    learn(trainer, method, data, checkpoint, config.compile)
    energy = meter.stop()
    callbacks: list[lightning.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, Pruning) and callback.reason:
            raise Pruned(callback.reason)
    require_trained(method, before, trainer.global_step)
    join_curves(curves, sorted(run.path.glob("metrics.before-*.csv")))
    best = run.checkpoints / "best.ckpt"
    if best.is_file():
        method.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    timer = next(callback for callback in callbacks if isinstance(callback, Timer))
    fitted = {
        "training_seconds": round(timer.time_elapsed("train"), 2),
        "weights": "best on validation" if best.is_file() else "last step",
        "energy": energy,
    }
    if config.optim.get("find"):
        fitted["learning_rate"] = trainer.optimizers[0].param_groups[0]["initial_lr"]
    return fitted, kernels(config, method, trainer), trainer.loggers


def kernels(config: DictConfig, method: Method, trainer: lightning.Trainer) -> dict[str, int]:
    """Return the versions of those kernels of `KERNELS` that a run used. Runs with other versions differ in the bits.

    Training on a GPU has its own kernels, but the student is always evaluated on the CPU.
    """
    used = {
        "adamw_cpu": config.optim.optimizer.get("fused") is None and any(map(is_fused, trainer.optimizers)),
        "bilstm_cpu": any(isinstance(module, BiLSTM) for module in method.modules()),
    }
    return {name: version for name, version in KERNELS.items() if used[name]}


def facts(config: DictConfig, splits: Splits, assembly: Assembly) -> dict[str, Any]:
    """Return what the result depends on beyond the software: seed, threads, data, teacher and downloads."""
    teacher = assembly.outputs.teacher
    streamed = {"transfer": assembly.transfer.store.facts()} if assembly.transfer else {}
    return {
        "seed": config.seed,
        "hub": hub.commits(value for _, value in flat(resolve(config))),
        "threads": torch.get_num_threads(),
        "data": {"counts": splits.counts, "label_names": splits.label_names, **row_checksums(splits), **streamed},
        "teacher": {"name": teacher.name, "checksum": teacher.checksum, **teacher.facts} if teacher else None,
    }
