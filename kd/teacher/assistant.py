"""A teacher's assistant: a model of middle size that is distilled from the teacher, and then teaches the student."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from pydantic import SkipValidation
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from kd.data.batching import Ragged, labels_of
from kd.data.sources import Splits
from kd.errors import KDError
from kd.losses.logits import SoftTarget
from kd.methods.distillation import Distillation
from kd.methods.objective import Objective
from kd.methods.schedules import Constant
from kd.models.fitted import FittedConfig
from kd.models.pretrained import new_student
from kd.options.declared import Share, Temperature
from kd.runtime.devices import ONE_CPU, Devices
from kd.storage.model_folder import require_length, set_labels
from kd.teacher.base import AnyReadyTeacher, AnyTeacher
from kd.teacher.fine_tuning import RECIPE, SingleTeacher, Trainee, stored, train_teacher
from kd.teacher.label_order import check_members
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.ready import ReadyTeacher, Wanted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assistant(SingleTeacher):
    """A model between teacher and student. It is distilled on demand and stored beside the teachers.

    It reads the teacher's tokens. Its own teacher may be another assistant, which makes a longer chain, or an ensemble.

    Args:
        teacher: the teacher of this assistant.
        model: (vocab_size, num_labels, pad_token_id) -> the configuration of this assistant's model.
        alpha: weight of the teacher's logits in its distillation; the gold labels have 1 - alpha.
        temperature: of the soft targets in its distillation.

    Source: Mirzadeh et al. 2020 (teacher assistants), https://arxiv.org/abs/1902.03393
    """

    teacher: SkipValidation[AnyTeacher]
    model: Callable[..., PretrainedConfig]
    alpha: Share
    temperature: Temperature

    recipe_names = ("alpha", "temperature", *RECIPE)

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
        """Return the teacher's word embeddings, which were trained on more text."""
        return self.teacher.word_table

    @cached_property
    def config(self) -> PretrainedConfig:
        return self._config(num_labels=2)

    def _config(self, num_labels: int) -> PretrainedConfig:
        tokenizer = self.tokenizer
        return self.model(vocab_size=len(tokenizer), num_labels=num_labels, pad_token_id=tokenizer.pad_token_id)

    def tokens(self, texts: Sequence[str]) -> Ragged:
        return self.teacher.tokens(texts)

    def require(self, splits: Splits) -> None:
        """Refuse an assistant or its teacher, before either is trained; see `kd.teacher.base.AnyTeacher.require`."""
        self._require_model(len(splits.label_names))
        if (seeds := getattr(self.teacher, "seeds", 1)) > 1:
            raise KDError(
                f"teacher.teacher.seeds: expected 1, found {seeds}; for several teachers of an assistant say "
                "teacher@teacher.teacher=ensemble"
            )
        self.teacher.require(splits)

    def ready(self, splits: Splits, outputs: Path, on: Devices = ONE_CPU) -> ReadyTeacher:
        """Return the trained assistant; see `kd.teacher.base.AnyTeacher.ready`.

        Raises:
            KDError: the model is impossible, or it has too few positions for the texts; or as for its teacher.
        """
        self.require(splits)
        above = self.teacher.ready(splits, outputs, on)
        check_members(above, TeacherOutputs(above, Path(outputs), cache=True), splits)
        train = partial(self._train, above, splits, outputs, on)
        model, facts = stored(Path(outputs) / "teachers", self._key(above.checksum, splits), train)
        batch_size, device = self.labelling_batch_size, above.members[0].device
        return ReadyTeacher(self.name_or_path, model, self.max_length, batch_size, facts, device)

    def _key(self, teacher: str, splits: Splits) -> str:
        # All rows count, since the teacher labels those without a gold label.
        own = {"teacher": teacher, "max_length": self.max_length, "model": self.config.to_json_string()}
        return self._hash(splits.train, splits.label_names, **own)

    def _require_model(self, num_labels: int) -> None:
        config = self._config(num_labels)
        if isinstance(config, FittedConfig):
            raise KDError(
                f"teacher.model: '{config.model_type}' is fitted in closed form, and an assistant is trained in steps; "
                "choose a model with layers"
            )
        require_length(self.name_or_path, config, self.max_length, "data.max_length")
        try:
            with torch.device("meta"):  # which allocates no weights
                new_student(config)
        except KDError as error:
            raise KDError(f"teacher.model of teacher=assistant cannot be made: {error}") from error

    def _train(self, above: AnyReadyTeacher, splits: Splits, outputs: Path, on: Devices, folder: Path) -> None:
        log.info("assistant: distilling it from %s on %d rows (once)", above.name, len(splits.train))
        # This process fills the cache, so that the processes of several devices only read it.
        above.cached(Wanted(splits.train["text"], "train", outputs, labels=labels_of(splits.train)))
        train_teacher(partial(self._trainee, above, splits, outputs), folder, self, on)

    def _trainee(self, above: AnyReadyTeacher, splits: Splits, outputs: Path, batch_size: int) -> Trainee:
        config = self._config(len(splits.label_names))
        set_labels(config, splits.label_names)
        teacher = TeacherOutputs(above, outputs, cache=True)
        train = teacher.attached_to(self._encoded(splits.train), splits.train, "train")
        objective = Objective({"soft_target": SoftTarget(self.temperature)}, Constant(self.alpha))
        method = partial(Distillation, new_student(config), objective=objective)
        return self._trainee_of(method, train, splits.validation, batch_size, self.name_or_path)
