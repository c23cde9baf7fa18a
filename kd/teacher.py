"""The teacher of a run: a backbone that is fine-tuned once, kept by content, and asked once for its outputs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import lightning
import numpy as np
import torch
from datasets import Dataset
from filelock import FileLock
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from rich.progress import track
from scipy.optimize import linear_sum_assignment
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kd import teacher_cache
from kd.assets import resolve
from kd.data.batching import EncodedSplit, LengthBucketSampler, Ragged, labels_of, tokenize
from kd.data.module import TextDataModule
from kd.data.sources import Splits
from kd.data.tokenizers import tokenizer_fingerprint
from kd.errors import KDError
from kd.inference import all_logits, logits_by_row
from kd.losses.label import LabelLoss
from kd.methods.base import run_fit
from kd.methods.distillation import FrozenTeacher, cached_teacher
from kd.methods.schedule import warm_up_and_decay
from kd.methods.supervised import Supervised
from kd.model_folder import (
    folder_checksum,
    load_classifier,
    load_config,
    load_tokenizer,
    local_model,
    require_length,
)
from kd.run import read_json, write_json

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Teacher:
    """A teacher by name, fine-tuned on demand.

    The fine-tuned model lives under ``<outputs>/teachers/<key>/``, where the key is a hash of the
    backbone, the labelled rows, the recipe and the seed: whoever asks first trains it, all others find it.

    Args:
        name_or_path: hub name, local folder, or ``asset:NAME``.
        fine_tune: train it on the labelled rows; False takes the model as it is.
        max_length: tokens after which texts are cut.
        epochs, batch_size, learning_rate, weight_decay, warm_up, gradient_clip, precision: the recipe.
        seed: of the fine-tuning; apart from the run's seed, so that runs over seeds share a teacher.
        labelling_batch_size: rows a batch where the teacher only answers.
    """

    name_or_path: str
    fine_tune: bool
    max_length: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warm_up: float
    gradient_clip: float
    precision: str
    seed: int
    labelling_batch_size: int

    @cached_property
    def backbone(self) -> Path:
        """The folder with the backbone's weights and tokenizer."""
        return local_model(str(resolve(self.name_or_path)))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.backbone)

    @cached_property
    def word_table(self) -> torch.Tensor:
        """The backbone's word table ``[V, d]``, as it was before any fine-tuning."""
        model = load_classifier(self.backbone, new_head=True)
        return model.get_input_embeddings().weight.detach().clone()

    def ready(self, splits: Splits, outputs: Path, accelerator: str = "cpu") -> ReadyTeacher:
        """The teacher that answers: fine-tuned on the training split if it has to be, and checked.

        Args:
            splits: the rows of the run.
            outputs: where fine-tuned teachers are kept.
            accelerator: as for ``lightning.Trainer``; what it trains and answers on.

        Raises:
            KDError: another number of labels than the data has, or texts longer than the teacher's positions.
        """
        config = load_config(self.backbone)
        require_length(self.name_or_path, config, self.max_length, "teacher.max_length")
        if self.fine_tune:
            return self._fine_tuned(splits, Path(outputs) / "teachers", accelerator)
        found = config.num_labels
        expected = len(splits.label_names)
        if found != expected:
            raise KDError(
                f"teacher '{self.name_or_path}' has {found} labels, the data has {expected} "
                f"({', '.join(splits.label_names)}); choose a teacher for this task or teacher.fine_tune=true"
            )
        return self._ready(self.backbone, {}, accelerator)

    def _ready(self, folder: Path, facts: dict, accelerator: str) -> ReadyTeacher:
        on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
        return ReadyTeacher(self.name_or_path, folder, self.max_length, self.labelling_batch_size, facts, device)

    def key(self, splits: Splits) -> str:
        """Names the fine-tuned teacher: the hash of all that decides its weights."""
        labelled = labelled_rows(splits.train)
        parts = {
            "format": FORMAT,
            "backbone": folder_checksum(self.backbone),
            "texts": teacher_cache.texts_hash(labelled["text"]),
            "labels": hashlib.sha256(labels_of(labelled).tobytes()).hexdigest(),
            "label_names": splits.label_names,
            **{name: getattr(self, name) for name in RECIPE},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]

    def _fine_tuned(self, splits: Splits, folder: Path, accelerator: str) -> ReadyTeacher:
        place = folder / self.key(splits)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            for leftover in folder.glob(f"{place.name}.building-*"):
                shutil.rmtree(leftover)
            if _damaged(place):
                log.warning("the teacher in %s is damaged: it is fine-tuned anew", place)
                shutil.rmtree(place)
            if not place.exists():
                building = place.with_suffix(f".building-{os.getpid()}")
                building.mkdir()
                try:
                    self._train(splits, building, accelerator)
                    os.replace(building, place)
                except BaseException:
                    shutil.rmtree(building, ignore_errors=True)
                    raise
            else:
                log.info("teacher: found the fine-tuned %s in %s", self.name_or_path, place)
        facts = read_json(place / "teacher.json")
        return self._ready(place / "model", facts, accelerator)

    def _train(self, splits: Splits, folder: Path, accelerator: str) -> None:
        log.info("teacher: fine-tuning %s on %d rows (once)", self.name_or_path, len(splits.train))
        lightning.seed_everything(self.seed, verbose=False)
        model = load_classifier(
            self.backbone,
            new_head=True,
            id2label=dict(enumerate(splits.label_names)),
            label2id={name: i for i, name in enumerate(splits.label_names)},
        )
        train = labelled_rows(splits.train)
        data = TextDataModule(self._encoded(train), self._encoded(splits.validation), self.batch_size, self.seed)
        method = Supervised(
            model,
            LabelLoss(),
            partial(torch.optim.AdamW, lr=self.learning_rate, weight_decay=self.weight_decay),
            partial(warm_up_and_decay, decay="linear", warm_up=self.warm_up),
            self.seed,
        )
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=self.epochs,
            precision=self.precision,
            gradient_clip_val=self.gradient_clip,
            use_distributed_sampler=False,
            logger=CSVLogger(folder, name="", version=""),
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            callbacks=[RichProgressBar()],
        )
        start = time.perf_counter()
        run_fit(trainer, method, data)
        seconds = time.perf_counter() - start
        model = model.to("cpu").eval()
        model.save_pretrained(folder / "model")
        self.tokenizer.save_pretrained(folder / "model")
        facts = {
            "name": self.name_or_path,
            "checksum": folder_checksum(folder / "model"),
            "validation_accuracy": float(trainer.callback_metrics["val/accuracy"]),
            "training_seconds": round(seconds, 2),
            "rows": len(train),
            **{name: getattr(self, name) for name in RECIPE},
        }
        write_json(folder / "teacher.json", facts)
        log.info("teacher: validation accuracy %.3f after %.0f s", facts["validation_accuracy"], seconds)

    def _encoded(self, split: Dataset) -> EncodedSplit:
        tokens = tokenize(self.tokenizer, split["text"], self.max_length)
        return EncodedSplit(tokens, labels_of(split), self.tokenizer.pad_token_id)


RECIPE = (
    "max_length",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "warm_up",
    "gradient_clip",
    "precision",
    "seed",
)


@dataclass(frozen=True)
class ReadyTeacher:
    """A teacher that can answer.

    Args:
        name: as the configuration calls it.
        folder: its Hugging Face folder.
        max_length: tokens after which texts are cut.
        batch_size: rows a batch.
        facts: what its fine-tuning recorded; empty for a model that was taken as it is.
        device: where it answers.
    """

    name: str
    folder: Path
    max_length: int
    batch_size: int
    facts: dict
    device: str = "cpu"

    @cached_property
    def checksum(self) -> str:
        return folder_checksum(self.folder)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.folder)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The live model, in evaluation mode and full precision."""
        return load_classifier(self.folder).to(self.device)

    def tokens(self, texts: Sequence[str]) -> Ragged:
        """The texts as the teacher reads them."""
        return tokenize(self.tokenizer, texts, self.max_length)

    def key(self, texts: Sequence[str]) -> teacher_cache.CacheKey:
        """What the teacher's logits for these texts depend on."""
        return teacher_cache.CacheKey(
            teacher=self.checksum,
            tokenizer=tokenizer_fingerprint(self.tokenizer),
            max_length=self.max_length,
            columns=("logits",),
            texts=teacher_cache.texts_hash(texts),
        )

    def cached_logits(self, texts: Sequence[str], outputs: Path, split: str) -> tuple[np.ndarray, float]:
        """Logits ``[N, C]`` from the cache, labelled first if nobody has; and the seconds it once took."""
        key = self.key(texts)
        folder = Path(outputs) / "teacher_cache"

        def compute() -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
            log.info("teacher: labelling %d %s rows (once)", len(texts), split)
            for index, logits in logits_by_row(self.model, self._batches(texts, f"labelling {split}")):
                yield index, {"logits": logits}

        note = {"teacher": self.name, "split": split}
        columns = teacher_cache.obtain(folder, key, len(texts), compute, note)
        return columns["logits"], read_json(folder / key.digest / "meta.json")["seconds"]

    def live_logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits ``[N, C]`` computed now and not kept."""
        return all_logits(self.model, self._batches(texts, "teacher"), len(texts))

    def _batches(self, texts: Sequence[str], title: str) -> Iterator:
        tokens = self.tokens(texts)
        split = EncodedSplit(tokens, np.full(len(tokens), -100), self.tokenizer.pad_token_id)
        sampler = LengthBucketSampler(tokens.lengths, self.batch_size)
        for rows in track(sampler, description=title, total=len(sampler)):
            yield split[rows]


@dataclass
class Answers:
    """The teacher's logits for whole splits, from the cache or live, and the time that labelling took."""

    teacher: ReadyTeacher | None
    outputs: Path
    cache: bool
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, split: Dataset, name: str) -> np.ndarray | None:
        """Logits ``[N, C]`` for every row of a split; None without a teacher."""
        if self.teacher is None:
            return None
        if not self.cache:
            return self.teacher.live_logits(split["text"])
        logits, seconds = self.teacher.cached_logits(split["text"], self.outputs, name)
        self.seconds[name] = seconds
        return logits

    def attached_to(self, encoded: EncodedSplit, split: Dataset) -> tuple[EncodedSplit, Callable]:
        """The training split with what the teacher's side needs, and the teacher that a method asks."""
        if self.cache:
            return replace(encoded, columns={"teacher_logits": self.of(split, "train")}), cached_teacher
        tokens = self.teacher.tokens(split["text"])
        padding = self.teacher.tokenizer.pad_token_id
        return replace(encoded, teacher_tokens=tokens, teacher_padding=padding), FrozenTeacher(self.teacher.model)


def check_label_order(name: str, logits: np.ndarray, labels: np.ndarray, label_names: list[str]) -> float:
    """The accuracy of a teacher on labelled rows, refused where its labels stand in another order.

    Args:
        logits: ``[N, C]``.
        labels: ``[N]``, all of them valid.

    Raises:
        KDError: if another order of the labels fits clearly better.
    """
    classes = len(label_names)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (logits.argmax(axis=1), labels), 1)
    accuracy = float(np.trace(counts) / len(labels))
    order = linear_sum_assignment(counts, maximize=True)[1]
    best = counts[range(classes), order].sum() / len(labels)
    if best > accuracy + 2 / np.sqrt(len(labels)):  # beyond what chance does to so few rows
        names = ", ".join(label_names[label] for label in order)
        raise KDError(
            f"teacher '{name}' is right on {accuracy:.1%} of the validation rows, and would be on {best:.1%} "
            f"with its labels in the order [{names}]; where the data names its labels, set "
            f"data.label_names=[{names}]; where it numbers them, reorder the teacher's head or fine-tune it"
        )
    return accuracy


def _damaged(place: Path) -> bool:
    if not place.exists():
        return False
    try:
        return read_json(place / "teacher.json")["checksum"] != folder_checksum(place / "model")
    except (KDError, OSError, KeyError):
        return True


def labelled_rows(split: Dataset) -> Dataset:
    """The rows that have a gold label.

    Raises:
        KDError: none has.
    """
    labelled = np.flatnonzero(labels_of(split) >= 0)
    if not len(labelled):
        raise KDError(
            "expected training rows with gold labels, found none; without them use method=distillation alpha=1 and a "
            "teacher that knows the task (teacher.fine_tune=false)"
        )
    return split if len(labelled) == len(split) else split.select(labelled)
