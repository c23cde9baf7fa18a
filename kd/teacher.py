"""The teacher of a run: a backbone that is fine-tuned once and kept by content."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import lightning
import numpy as np
import torch
from datasets import Dataset
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from kd import ranks, teacher_cache
from kd.assets import resolve
from kd.data.batching import EncodedSplit, Ragged, in_slices, labels_of, tokenize
from kd.data.module import TextDataModule
from kd.data.sources import Splits
from kd.errors import KDError
from kd.locks import lock, mark
from kd.losses.label import LabelLoss
from kd.methods.base import Method, run_fit
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
from kd.ready_teacher import ReadyTeacher
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
        answer_precision: of the teacher where it only answers, 32-true or bf16-true; the student keeps its own.
        answer_device: where it labels and is measured by one process; None: where the student trains.
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
    answer_precision: str = "32-true"
    answer_device: str | None = None

    @cached_property
    def backbone(self) -> Path:
        """The folder with the backbone's weights and tokenizer."""
        return local_model(str(resolve(self.name_or_path)))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.backbone)

    def sources(self, chosen: str | None = None) -> dict[str, Teacher]:
        """The teachers whose features may be asked for, by the name under which an ensemble keeps them."""
        if chosen not in (None, "all"):
            raise KDError(
                f"method.features_from={chosen} names a member of an ensemble, and there is one teacher; leave it null"
            )
        return {"": self}

    @cached_property
    def config(self) -> PretrainedConfig:
        """Of the backbone; fine-tuning changes no width and no depth."""
        return load_config(self.backbone)

    def tokens(self, texts: Sequence[str]) -> Ragged:
        """The texts as the teacher reads them."""
        return tokenize(self.tokenizer, texts, self.max_length)

    def untrained(self, accelerator: str = "cpu") -> ReadyTeacher:
        """The backbone as it is, with no head or one of another task."""
        return replace(self._ready(self.backbone, {}, accelerator), has_head=False)

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
        device = self.answer_device or ("cuda" if on_gpu else "cpu")
        batch_size, precision = self.labelling_batch_size, self.answer_precision
        return ReadyTeacher(self.name_or_path, folder, self.max_length, batch_size, facts, device, precision=precision)

    def key(self, splits: Splits) -> str:
        """Names the fine-tuned teacher: the hash of all that decides its weights."""
        labelled = labelled_rows(splits.train)
        parts = {
            "format": FORMAT,
            "backbone": folder_checksum(self.backbone),
            "texts": teacher_cache.texts_hash(in_slices(labelled["text"])),
            "labels": hashlib.sha256(labels_of(labelled).tobytes()).hexdigest(),
            "label_names": splits.label_names,
            **{name: getattr(self, name) for name in RECIPE},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]

    def _fine_tuned(self, splits: Splits, folder: Path, accelerator: str) -> ReadyTeacher:
        place = stored(folder, self.key(splits), lambda building: self._train(splits, building, accelerator))
        return self._ready(place / "model", read_json(place / "teacher.json"), accelerator)

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
        facts = {"name": self.name_or_path, "rows": len(train), **{name: getattr(self, name) for name in RECIPE}}
        fit_teacher(method, data, self.tokenizer, folder, facts, accelerator, self)

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


class TrainingRecipe(Protocol):
    """What a trainer of teachers is told."""

    epochs: int
    precision: str
    gradient_clip: float


@ranks.alone()
def fit_teacher(
    method: Method,
    data: TextDataModule,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    facts: dict,
    accelerator: str,
    recipe: TrainingRecipe,
) -> None:
    """Train a model that will teach, on one device, and leave it in ``folder/model`` with its facts beside it."""
    trainer = lightning.Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=recipe.epochs,
        precision=recipe.precision,
        gradient_clip_val=recipe.gradient_clip,
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
    method.student.to("cpu").eval().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    measured = {
        "checksum": folder_checksum(folder / "model"),
        "validation_accuracy": float(trainer.callback_metrics["val/accuracy"]),
        "training_seconds": round(seconds, 2),
    }
    write_json(folder / "teacher.json", facts | measured)
    log.info("teacher: validation accuracy %.3f after %.0f s", measured["validation_accuracy"], seconds)


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
