"""A teacher's assistant: a middle model that is distilled from the teacher, and teaches the student in its place."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import lightning
import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from kd.data.batching import EncodedSplit, Ragged, in_slices, labels_of
from kd.data.module import TextDataModule
from kd.data.sources import Splits
from kd.errors import KDError
from kd.losses.label import LabelLoss
from kd.losses.logits import SoftTarget
from kd.methods.distillation import Distillation
from kd.methods.learning_rate import warm_up_and_decay
from kd.methods.objective import Objective
from kd.methods.schedules import Constant
from kd.models.pretrained import new_student
from kd.runtime.devices import ONE_CPU, Devices
from kd.storage.files import read_json
from kd.storage.model_folder import require_length
from kd.teacher import cache as teacher_cache
from kd.teacher.base import WithoutCaches
from kd.teacher.fine_tuning import Trainee, stored, train_teacher
from kd.teacher.label_order import check_members
from kd.teacher.outputs import Answers
from kd.teacher.ready import ReadyTeacher
from kd.teacher.teacher import Teacher

log = logging.getLogger(__name__)

FORMAT = 1
RECIPE = (
    *("alpha", "temperature", "epochs", "batch_size", "learning_rate", "weight_decay", "warm_up", "gradient_clip"),
    *("precision", "seed"),
)


@dataclass(frozen=True)
class Assistant(WithoutCaches):
    """A model between teacher and student, distilled on demand and kept by content beside the teachers.

    It reads the teacher's tokens. Its own teacher may be an assistant or an ensemble again: that makes a longer chain.

    Args:
        teacher: what it learns from.
        model: (vocab_size, num_labels, pad_token_id) -> its configuration.
        alpha, temperature: of its distillation, with soft targets.
        epochs, batch_size, learning_rate, weight_decay, warm_up, gradient_clip, precision, seed: its recipe.
        labelling_batch_size: rows a batch where it only answers.

    Source: Mirzadeh et al. 2020 (teacher assistants), https://arxiv.org/abs/1902.03393
    """

    teacher: Teacher
    model: Callable[..., PretrainedConfig]
    alpha: float
    temperature: float
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warm_up: float
    gradient_clip: float
    precision: str
    seed: int
    labelling_batch_size: int

    fine_tune = True

    @property
    def name_or_path(self) -> str:
        return f"assistant of {self.teacher.name_or_path}"

    @property
    def max_length(self) -> int:
        return self.teacher.max_length

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.teacher.tokenizer

    @property
    def word_table(self) -> torch.Tensor:
        """The teacher's: its word vectors were learnt from more text."""
        return self.teacher.word_table

    @cached_property
    def config(self) -> PretrainedConfig:
        return self._config(num_labels=2)

    def _config(self, num_labels: int) -> PretrainedConfig:
        tokenizer = self.tokenizer
        return self.model(vocab_size=len(tokenizer), num_labels=num_labels, pad_token_id=tokenizer.pad_token_id)

    def tokens(self, texts: Sequence[str]) -> Ragged:
        return self.teacher.tokens(texts)

    def sources(self, chosen: str | None = None) -> dict[str, Assistant]:
        """Itself; see `kd.teacher.teacher.Teacher.sources`."""
        if chosen not in (None, "all"):
            raise KDError(
                f"method.features_from={chosen} names a member of an ensemble, and teacher=assistant is none; "
                "leave it null"
            )
        return {"": self}

    def ready(self, splits: Splits, outputs: Path, on: Devices = ONE_CPU) -> ReadyTeacher:
        """The assistant that answers; distilled first if nobody has done it.

        Raises:
            KDError: no such model can be made, or it has no positions for the teacher's texts; or as the teacher's.
        """
        self._require_model(len(splits.label_names))  # before the teacher trains
        above = self.teacher.ready(splits, outputs, on)
        check_members(above, Answers(above, Path(outputs), cache=True), splits)
        key = self._key(above.checksum, splits)
        place = stored(Path(outputs) / "teachers", key, lambda folder: self._train(above, splits, outputs, folder, on))
        device = above.members[0].device
        facts = read_json(place / "teacher.json")
        batch_size = self.labelling_batch_size
        return ReadyTeacher(self.name_or_path, place / "model", self.max_length, batch_size, facts, device)

    def _key(self, teacher: str, splits: Splits) -> str:
        parts = {
            "format": FORMAT,
            "teacher": teacher,
            "max_length": self.max_length,
            "model": self.config.to_json_string(),
            "texts": teacher_cache.texts_hash(in_slices(splits.train["text"])),
            "labels": hashlib.sha256(labels_of(splits.train).tobytes()).hexdigest(),
            "label_names": splits.label_names,
            **{name: getattr(self, name) for name in RECIPE},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]

    def _require_model(self, num_labels: int) -> None:
        config = self._config(num_labels)
        require_length(self.name_or_path, config, self.max_length, "data.max_length")
        try:
            with torch.device("meta"):
                new_student(config)
        except KDError as error:
            raise KDError(f"teacher.model of teacher=assistant cannot be made: {error}") from error

    def _train(self, above: ReadyTeacher, splits: Splits, outputs: Path, folder: Path, on: Devices) -> None:
        log.info("assistant: distilling it from %s on %d rows (once)", above.name, len(splits.train))
        above.cached(splits.train["text"], "train", outputs, labels=labels_of(splits.train))  # by this process alone
        train_teacher(partial(self._trainee, above, splits, outputs), folder, self, on)

    def _trainee(self, above: ReadyTeacher, splits: Splits, outputs: Path, batch_size: int) -> Trainee:
        lightning.seed_everything(self.seed, verbose=False)
        config = self._config(len(splits.label_names))
        config.id2label = dict(enumerate(splits.label_names))
        config.label2id = {name: number for number, name in enumerate(splits.label_names)}
        answers = Answers(above, outputs, cache=True, max_gb=math.inf)
        train = answers.attached_to(self._encoded(splits.train), splits.train, "train")
        data = TextDataModule(train, self._encoded(splits.validation), batch_size, self.seed)
        method = Distillation(
            new_student(config),
            LabelLoss(),
            partial(torch.optim.AdamW, lr=self.learning_rate, weight_decay=self.weight_decay),
            partial(warm_up_and_decay, decay="linear", warm_up=self.warm_up),
            Objective({"soft_target": SoftTarget(self.temperature)}, Constant(self.alpha)),
            seed=self.seed,
        )
        facts = {"name": self.name_or_path, "rows": len(train), **{name: getattr(self, name) for name in RECIPE}}
        return Trainee(method, data, self.tokenizer, facts)

    def _encoded(self, split) -> EncodedSplit:
        return EncodedSplit(self.tokens(split["text"]), labels_of(split), self.tokenizer.pad_token_id)
