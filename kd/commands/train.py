"""``kd train``: the Hydra application."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import torch
import yaml
from datasets import Dataset
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import kd.models  # noqa: F401  registers the students
from kd import build
from kd.data.batching import EncodedSplit, LengthBucketSampler, padding_share
from kd.data.module import TextDataModule
from kd.data.sources import Splits
from kd.errors import KDError
from kd.inference import all_logits, latency, parameter_counts
from kd.methods.base import Method
from kd.methods.distillation import FrozenTeacher, cached_teacher
from kd.metrics import fidelity_metrics, label_metrics
from kd.run import RunDirectory, environment, write_json
from kd.teacher import ReadyTeacher, check_label_order
from kd.teacher_cache import texts_hash

log = logging.getLogger(__name__)

# What may differ between two starts of the same run.
NOT_IDENTITY = ("resume", "rerun", "outputs")


def main(arguments: list[str]) -> int:
    """Run Hydra on the arguments; every job of a multirun is one call of `train`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as they are; kd.cli decides what to show
    sys.argv = [sys.argv[0], *arguments]
    quiet()
    jobs: list[KDError | None] = []

    def job(config: DictConfig) -> None:
        """A mistake in one job of a sweep must not keep the others from running."""
        try:
            train(config)
            jobs.append(None)
        except KDError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                log.error("%s", error)
            jobs.append(error)

    try:
        hydra.main(version_base="1.3", config_path=str(configuration_folder()), config_name="config")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise KDError(one_sentence(error)) from error
    mistakes = [error for error in jobs if error]
    if len(jobs) > 1 and mistakes:
        raise KDError(f"{len(mistakes)} of {len(jobs)} jobs failed; the first: {mistakes[0]}") from mistakes[0]
    if mistakes:
        raise mistakes[0]
    return 0


def configuration_folder() -> Path:
    """``conf/``: inside the package where kd is installed from a wheel, beside it in a checkout."""
    inside = Path(str(files("kd"))) / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def one_sentence(error: Exception) -> str:
    """Hydra's several lines in one, its hints included."""
    text = " ".join(str(error).split())
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        text += ": " + " ".join(str(cause).split("\n")[0].split())
    return text


def quiet() -> None:
    """Silence what libraries say about things that are as they should be."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message=".*Experiment logs directory.*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def train(config: DictConfig) -> None:
    """Train one student and leave a run directory."""
    quiet()
    run = RunDirectory(Path(HydraConfig.get().runtime.output_dir))
    identity = build.resolved(config)
    checkpoint = starting_point(run, identity, config)
    if checkpoint == "done":
        log.info("already done: %s (rerun=true trains it again)", run.path)
        return
    if config.threads:
        torch.set_num_threads(config.threads)
    run.config_file.write_text(yaml.safe_dump(identity, sort_keys=False, allow_unicode=True))
    run.set_status("running")
    try:
        figures = train_student(config, run, checkpoint)
    except BaseException as error:
        run.set_status("failed", reason=f"{type(error).__name__}: {error}")
        raise
    run.set_status("done")
    test = figures["test"]
    log.info("test accuracy %.3f on %d rows; the run is in %s", test["accuracy"], test["rows"], run.path)


def starting_point(run: RunDirectory, identity: dict[str, Any], config: DictConfig) -> Path | str | None:
    """Where to start in this directory: "done", the checkpoint of an interrupted run, or None for anew."""
    if not run.config_file.is_file() or not run.status_file.is_file():
        return None
    before = yaml.safe_load(run.config_file.read_text())
    same = all(before.get(key) == value for key, value in identity.items() if key not in NOT_IDENTITY)
    last = run.checkpoints / "last.ckpt"
    if same and not config.rerun:
        if run.status()["state"] == "done":
            return "done"
        if config.resume and last.is_file():
            log.info("resuming the interrupted run from %s", last)
            return last
    place = run.set_aside_products()
    if place:
        log.info("an earlier run in this directory was moved to %s", place)
    return None


def train_student(config: DictConfig, run: RunDirectory, checkpoint: Path | None) -> dict[str, Any]:
    """From configuration to a finished run; returns what ``metrics.json`` holds."""
    build.check(config)
    splits = build.splits(config)
    log.info("%s", splits.report())
    teacher = build.teacher(config)
    ready = teacher.ready(splits, Path(config.outputs)) if teacher else None
    transfers = build.method_class(config).reads_teacher
    if transfers and ready is None:
        raise KDError(
            f"method={config.choices.method} learns from a teacher, and teacher=none gives none; choose teacher=..."
        )
    answers = Answers(ready, Path(config.outputs), config.cache)
    if ready and not teacher.fine_tune:
        check_label_order(
            ready.name,
            answers.of(splits.validation, "validation"),
            np.asarray(splits.validation["label"]),
            splits.label_names,
        )
    tokenizer = build.tokenizer(config, splits, teacher)
    max_length = config.data.max_length
    train_split = build.encoded(splits.train, tokenizer, max_length)
    known: dict[str, Any] = {}
    if transfers:
        train_split, source = answers.attached_to(train_split, splits.train)
        known = {"losses": build.losses(config, len(splits.label_names)), "teacher": source}
    data = TextDataModule(
        train_split,
        build.encoded(splits.validation, tokenizer, max_length),
        config.data.batch_size,
        config.seed,
    )
    student = build.student(config, tokenizer, splits.label_names, teacher)
    method = build.method(config, student, **known)
    write_json(run.path / "environment.json", environment() | facts(config, splits, ready))
    seconds = fit(config, run, method, data, checkpoint)

    student.eval()
    student.save_pretrained(run.model)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(run.model)
    figures = {
        **{name: config.choices[name] for name in config.choices},
        "seed": config.seed,
        "training_seconds": round(seconds, 2),
        "padding_share": round(padding_share(data.train.tokens.lengths, list(data.train_sampler())), 4),
        "parameters": parameter_counts(student),
        "model_bytes": (run.model / "model.safetensors").stat().st_size,
        "latency": latency(student, tokenizer, splits.validation["text"][:200], max_length),
        **evaluate(run, student, tokenizer, splits, answers, max_length),
    }
    if ready:
        figures["teacher_cost"] = {
            "name": ready.name,
            "training_seconds": ready.facts.get("training_seconds"),
            "labelling_seconds": round(answers.seconds, 2),
            "parameters": parameter_counts(ready.model),
            "model_bytes": sum(
                f.stat().st_size for f in ready.folder.iterdir() if f.suffix in (".safetensors", ".bin")
            ),
            "latency": latency(ready.model, ready.tokenizer, splits.validation["text"][:200], ready.max_length),
        }
    write_json(run.metrics_file, figures)
    return figures


@dataclass
class Answers:
    """The teacher's logits for whole splits, from the cache or live, and the time that labelling took."""

    teacher: ReadyTeacher | None
    outputs: Path
    cache: bool
    seconds: float = 0.0

    def of(self, split: Dataset, name: str) -> np.ndarray | None:
        """Logits ``[N, C]`` for every row of a split; None without a teacher."""
        if self.teacher is None:
            return None
        if not self.cache:
            return self.teacher.live_logits(split["text"])
        logits, seconds = self.teacher.cached_logits(split["text"], self.outputs, name)
        self.seconds += seconds
        return logits

    def attached_to(self, encoded: EncodedSplit, split: Dataset) -> tuple[EncodedSplit, Callable]:
        """The training split with what the teacher's side needs, and the teacher that a method asks."""
        if self.cache:
            return replace(encoded, columns={"teacher_logits": self.of(split, "train")}), cached_teacher
        tokens = self.teacher.tokens(split["text"])
        padding = self.teacher.tokenizer.pad_token_id
        return replace(encoded, teacher_tokens=tokens, teacher_padding=padding), FrozenTeacher(self.teacher.model)


def fit(config: DictConfig, run: RunDirectory, method: Method, data: TextDataModule, checkpoint: Path | None) -> float:
    """Train, then put the weights of the best epoch into the student; returns the seconds of training."""
    trainer = build.trainer(config, run.path)
    curves_before = (run.path / "metrics.csv").read_bytes() if checkpoint else None
    start = time.perf_counter()
    trainer.fit(method, data, ckpt_path=checkpoint, weights_only=True)
    seconds = time.perf_counter() - start
    if trainer.interrupted:
        raise KeyboardInterrupt
    if curves_before:
        join_curves(run.path / "metrics.csv", curves_before)
    best = run.checkpoints / "best.ckpt"
    if best.is_file():
        method.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    return seconds


def join_curves(path: Path, before: bytes) -> None:
    """Put the curves from before an interruption, up to where the run resumed, in front of the new ones."""
    new = pandas.read_csv(path)
    old = pandas.read_csv(io.BytesIO(before))
    pandas.concat([old[old["step"] < new["step"].min()], new]).to_csv(path, index=False)


def evaluate(
    run: RunDirectory,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: Splits,
    answers: Answers,
    max_length: int,
) -> dict[str, Any]:
    """Figures of student and teacher on validation and test, and every prediction on disk.

    The only place of a run that reads the test split, once.
    """
    figures, tables = {}, []
    for name in ("validation", "test"):
        split = getattr(splits, name)
        encoded = build.encoded(split, tokenizer, max_length)
        rows = LengthBucketSampler(encoded.tokens.lengths, 256)
        logits = all_logits(student, (encoded[batch] for batch in rows), len(encoded))
        teacher = answers.of(split, name)
        figures[name] = {"rows": len(encoded), **label_metrics(logits, encoded.labels)}
        columns = {
            "split": [name] * len(encoded),
            "index": np.arange(len(encoded)),
            "line": np.asarray(split["line"]),
            "label": encoded.labels,
            "logits": list(logits),
        }
        if teacher is not None:
            figures[name] |= fidelity_metrics(logits, teacher)
            figures[name]["teacher"] = label_metrics(teacher, encoded.labels)
            columns["teacher_logits"] = list(np.asarray(teacher))
        tables.append(pyarrow.table(columns))
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), run.predictions_file)
    return figures


def facts(config: DictConfig, splits: Splits, teacher: ReadyTeacher | None) -> dict[str, Any]:
    """What this run stood on beyond the software."""
    return {
        "seed": config.seed,
        "threads": torch.get_num_threads(),
        "data": {
            "counts": splits.counts,
            "label_names": splits.label_names,
            **{name: texts_hash(getattr(splits, name)["text"]) for name in ("train", "validation", "test")},
        },
        "teacher": {"name": teacher.name, "checksum": teacher.checksum, **teacher.facts} if teacher else None,
    }
