"""The teacher of a run: a backbone that is fine-tuned once and kept by content."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import lightning
import numpy as np
import torch
from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from kd.data.batching import EncodedSplit, Ragged, in_slices, labels_of, tokenize
from kd.data.module import TextDataModule
from kd.data.sources import Splits
from kd.errors import KDError
from kd.losses.label import LabelLoss
from kd.methods.learning_rate import warm_up_and_decay
from kd.methods.supervised import Supervised
from kd.runtime.devices import ONE_CPU, Devices
from kd.storage.assets import resolve
from kd.storage.files import read_json
from kd.storage.model_folder import (
    folder_checksum,
    load_classifier,
    load_config,
    load_tokenizer,
    local_model,
    require_length,
)
from kd.teacher import cache as teacher_cache
from kd.teacher.base import WithoutCaches
from kd.teacher.fine_tuning import Trainee, on_cuda, stored, train_teacher
from kd.teacher.ready import ReadyTeacher

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Teacher(WithoutCaches):
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

    def untrained(self, on: Devices = ONE_CPU) -> ReadyTeacher:
        """The backbone as it is, with no head or one of another task."""
        return replace(self._ready(self.backbone, {}, on), has_head=False)

    @cached_property
    def word_table(self) -> torch.Tensor:
        """The backbone's word table ``[V, d]``, as it was before any fine-tuning."""
        model = load_classifier(self.backbone, new_head=True)
        return model.get_input_embeddings().weight.detach().clone()

    def ready(self, splits: Splits, outputs: Path, on: Devices = ONE_CPU) -> ReadyTeacher:
        """The teacher that answers: fine-tuned on the training split if it has to be, and checked.

        Args:
            splits: the rows of the run.
            outputs: where fine-tuned teachers are kept.
            on: what it trains and answers on.

        Raises:
            KDError: another number of labels than the data has, or texts longer than the teacher's positions.
        """
        config = load_config(self.backbone)
        require_length(self.name_or_path, config, self.max_length, "teacher.max_length")
        if self.fine_tune:
            return self._fine_tuned(splits, Path(outputs) / "teachers", on)
        found = config.num_labels
        expected = len(splits.label_names)
        if found != expected:
            raise KDError(
                f"teacher '{self.name_or_path}' has {found} labels, the data has {expected} "
                f"({', '.join(splits.label_names)}); choose a teacher for this task or teacher.fine_tune=true"
            )
        return self._ready(self.backbone, {}, on)

    def _ready(self, folder: Path, facts: dict, on: Devices) -> ReadyTeacher:
        device = self.answer_device or ("cuda" if on_cuda(on) else "cpu")
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

    def _fine_tuned(self, splits: Splits, folder: Path, on: Devices) -> ReadyTeacher:
        place = stored(folder, self.key(splits), lambda building: self._train(splits, building, on))
        return self._ready(place / "model", read_json(place / "teacher.json"), on)

    def _train(self, splits: Splits, folder: Path, on: Devices) -> None:
        log.info("teacher: fine-tuning %s on %d rows (once)", self.name_or_path, len(splits.train))
        train_teacher(partial(self._trainee, splits), folder, self, on)

    def _trainee(self, splits: Splits, batch_size: int) -> Trainee:
        lightning.seed_everything(self.seed, verbose=False)
        model = load_classifier(
            self.backbone,
            new_head=True,
            id2label=dict(enumerate(splits.label_names)),
            label2id={name: i for i, name in enumerate(splits.label_names)},
        )
        train = labelled_rows(splits.train)
        data = TextDataModule(self._encoded(train), self._encoded(splits.validation), batch_size, self.seed)
        method = Supervised(
            model,
            LabelLoss(),
            partial(torch.optim.AdamW, lr=self.learning_rate, weight_decay=self.weight_decay),
            partial(warm_up_and_decay, decay="linear", warm_up=self.warm_up),
            self.seed,
        )
        facts = {"name": self.name_or_path, "rows": len(train), **{name: getattr(self, name) for name in RECIPE}}
        return Trainee(method, data, self.tokenizer, facts)

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
