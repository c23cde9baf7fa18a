"""The teacher of a run: a backbone that is fine-tuned once and then found again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from datasets import Dataset
from torch.optim import AdamW
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from kd.data.batching import Ragged, labels_of, tokenize
from kd.data.sources import Splits
from kd.errors import KDError, TrainingFailed
from kd.methods.supervised import Supervised
from kd.options.declared import TextLength
from kd.run.identity import LATER_OF_TEACHERS
from kd.runtime.devices import ONE_CPU, Devices
from kd.storage.assets import resolve
from kd.storage.files import write_text
from kd.storage.model_check import check_pair
from kd.storage.model_folder import (
    folder_checksum,
    load_classifier,
    load_config,
    load_tokenizer,
    load_word_table,
    local_model,
    require_length,
    require_one_label,
)
from kd.teacher.fine_tuning import RECIPE, SingleTeacher, Trainee, on_cuda, stored, train_teacher
from kd.teacher.ready import ReadyTeacher
from kd.teacher.recipe import layer_scales, layerwise_adamw

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher(SingleTeacher):
    """A teacher by name, fine-tuned on demand.

    The fine-tuned model is stored in ``<outputs>/teachers/<key>/``. The key is a hash of the backbone, the labelled
    rows, the recipe and the seed. The first run that needs this model trains it, all others find it.

    A search trains teachers of several recipes with seed 0 and takes the one with the highest accuracy on validation:
    first half, once and twice the learning rate, then twice the epochs at the best of these. Each is stored, so that
    the search costs nothing the second time, and teachers of other seeds share it.

    Args:
        name_or_path: a name on the hub, a local folder, or ``asset:NAME``.
        fine_tune: true trains it on the labelled rows; false takes the model as it is.
        max_length: tokens after which texts are truncated; two of them are special tokens.
        answer_precision: of the trained teacher when it only gives outputs; the student has a precision of its own.
        answer_device: where a single process labels with the teacher and measures it; null means where the student
            trains.
        layer_decay: the learning rate of each layer, as a share of that of the layer above; 1 trains all alike.
        search: choose learning rate and epochs on validation; those given are where the search starts.
        seeds: number of teachers with seeds from ``seed`` on, whose logits are averaged.
    """

    name_or_path: str
    fine_tune: bool
    max_length: TextLength
    answer_precision: Literal["32-true", "bf16-true"] = "32-true"
    answer_device: Literal["cpu"] | None = None
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    search: bool = False
    seeds: Annotated[int, Ge(1), Le(100)] = 1

    recipe_names = ("max_length", *RECIPE, "layer_decay")

    def __post_init__(self) -> None:
        super().__post_init__()
        used = [name for name, value in LATER_OF_TEACHERS.items() if getattr(self, name) != value]
        if used and not self.fine_tune:
            raise KDError(
                f"teacher.{used[0]} is about the fine-tuning of the teacher, and teacher.fine_tune=false trains none; "
                "leave it out"
            )

    @cached_property
    def backbone(self) -> Path:
        """Return the folder with the backbone's weights and tokenizer."""
        return local_model(str(resolve(self.name_or_path)))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.backbone)

    @cached_property
    def config(self) -> PretrainedConfig:
        return load_config(self.backbone)

    @cached_property
    def word_table(self) -> torch.Tensor:
        """Return the backbone's word embeddings ``[V, d]``, as they were before any fine-tuning."""
        return load_word_table(self.backbone)

    def tokens(self, texts: Sequence[str]) -> Ragged:
        return tokenize(self.tokenizer, texts, self.max_length)

    def untrained(self, on: Devices = ONE_CPU) -> ReadyTeacher:
        """Return the backbone as it is, with no head or with the head of another task."""
        return replace(self._ready(self.backbone, {}, on), has_head=False)

    def require(self, splits: Splits) -> None:
        """Refuse a teacher that does not fit the data, before anything is trained.

        Raises:
            KDError: as for `ready`.
        """
        require_length(self.name_or_path, self.config, self.max_length, "teacher.max_length")
        if self.max_length <= (special := self.tokenizer.num_special_tokens_to_add()):
            raise KDError(
                f"teacher.max_length: expected more than the {special} special tokens of '{self.name_or_path}', found "
                f"{self.max_length}; raise it"
            )
        if self.fine_tune:
            return
        require_one_label(self.name_or_path, self.config)
        found, expected = self.config.num_labels, len(splits.label_names)
        if found != expected:
            raise KDError(
                f"teacher '{self.name_or_path}' has {found} labels, the data has {expected} "
                f"({', '.join(splits.label_names)}); choose a teacher for this task or teacher.fine_tune=true"
            )

    def ready(self, splits: Splits, outputs: Path, on: Devices = ONE_CPU) -> ReadyTeacher:
        """Return the trained teacher; see `kd.teacher.base.AnyTeacher.ready`.

        Raises:
            KDError: the number of labels differs from the data's, the teacher is not for one label a text, or it has
                too few positions for the texts.
        """
        self.require(splits)
        if not self.fine_tune:
            return self._ready(self.backbone, {}, on)
        chosen = self._searched(splits, outputs, on) if self.search else self
        return self._ready(*chosen._stored(splits, outputs, on), on)

    def _stored(self, splits: Splits, outputs: Path, on: Devices) -> tuple[Path, dict[str, Any]]:
        return stored(Path(outputs) / "teachers", self.key(splits), partial(self._train, splits, on))

    def _searched(self, splits: Splits, outputs: Path, on: Devices) -> Self:
        """Return the recipe with the highest accuracy on validation; among equals the first.

        Raises:
            KDError: the training of each recipe failed, or one could not begin.
        """

        @cache
        def accuracy(recipe: Self) -> float:
            failed = Path(outputs) / "teachers" / f"{recipe.key(splits)}.failed"
            try:
                if failed.is_file():
                    raise TrainingFailed(failed.read_text())
                return recipe._stored(splits, outputs, on)[1]["validation_accuracy"]
            except TrainingFailed as error:  # such as a loss that is not finite
                log.warning("teacher: learning rate %g is left out: %s", recipe.learning_rate, error)
                write_text(failed, str(error))
                return -1.0

        start = replace(self, search=False, seed=0, seeds=1)
        best = max((replace(start, learning_rate=self.learning_rate * part) for part in (1, 0.5, 2)), key=accuracy)
        if accuracy(best) < 0:
            raise TrainingFailed(
                f"teacher.search: expected a training that works at half, once or twice teacher.learning_rate="
                f"{self.learning_rate:g}, found that each failed, as the warnings say; change it"
            )
        best = max((best, replace(best, epochs=2 * best.epochs)), key=accuracy)
        log.info("teacher: the search chose learning rate %g and %d epochs", best.learning_rate, best.epochs)
        return replace(best, seed=self.seed)

    def _ready(self, folder: Path, facts: dict[str, Any], on: Devices) -> ReadyTeacher:
        device = self.answer_device or ("cuda" if on_cuda(on) else "cpu")
        batch_size, precision = self.labelling_batch_size, self.answer_precision
        return ReadyTeacher(self.name_or_path, folder, self.max_length, batch_size, facts, device, precision=precision)

    def key(self, splits: Splits) -> str:
        """Return the name of the fine-tuned teacher: a hash of everything that affects its weights."""
        return self._hash(labelled_rows(splits.train), splits.label_names, backbone=folder_checksum(self.backbone))

    def _train(self, splits: Splits, on: Devices, folder: Path) -> None:
        rows = len(labelled_rows(splits.train))
        log.info("teacher: fine-tuning %s on %d rows (once)", self.name_or_path, rows)
        train_teacher(partial(self._trainee, splits), folder, self, on)

    def _trainee(self, splits: Splits, batch_size: int) -> Trainee:
        model = load_classifier(self.backbone, new_head=True, label_names=splits.label_names)
        check_pair(self.backbone, model, self.tokenizer, self.max_length)
        train = self._encoded(labelled_rows(splits.train))
        scales = layer_scales(model, self.layer_decay) if self.layer_decay < 1 else None
        optimizer = partial(layerwise_adamw, scales=scales) if scales else AdamW
        return self._trainee_of(
            partial(Supervised, model), train, splits.validation, batch_size, self.name_or_path, optimizer
        )


def labelled_rows(split: Dataset) -> Dataset:
    """Return the rows that have a gold label.

    Raises:
        KDError: no row has one.
    """
    labelled = np.flatnonzero(labels_of(split) >= 0)
    if not len(labelled):
        raise KDError(
            "expected training rows with gold labels, found none; without them use method=distillation alpha=1 and a "
            "teacher that was trained for this task (teacher.fine_tune=false)"
        )
    return split if len(labelled) == len(split) else split.select(labelled)
