"""A teacher that is a file: answers that any model, service or person gave, joined to the texts by content."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import torch
from annotated_types import Gt, Le
from datasets import Dataset
from pydantic import AllowInfNan
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from kd.data.batching import Ragged, in_slices, labels_of
from kd.data.sources import Splits
from kd.errors import KDError
from kd.features.feature import Feature
from kd.methods.distillation import Source
from kd.options.declared import CheckedFields, Temperature
from kd.runtime.devices import ONE_CPU, Devices
from kd.storage.assets import resolve
from kd.storage.checksum import file_sha256
from kd.storage.model_folder import load_tokenizer, load_word_table, local_model
from kd.teacher.answers_file import AnswersTable, read_answers
from kd.teacher.label_order import check_label_order
from kd.teacher.ready import Columns, ReadyTeacher, Wanted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers(CheckedFields):
    """A file with a text and an answer in each row. It gives logits and nothing else.

    Args:
        path: JSONL, JSON, CSV, TSV, Parquet or Arrow, with probabilities, logits, scores or labels.
        text: name of the column with the texts.
        label: name of the column with the labels, which is read where the file has no other answers.
        encoding: of a text format.
        temperature: divides the file's logits or log-probabilities, before any other temperature.
        floor: least probability of a class; probabilities of 0, and labels, have no finite logit.
        missing: training rows without an answer are taught by their gold label alone, left out, or refused.
        words_of: a model whose tokenizer and word table the student may start from: a folder, a name on the hub, or
            ``asset:NAME``; null: none.
    """

    path: str
    text: str = "text"
    label: str = "label"
    encoding: str = "utf-8"
    temperature: Temperature = 1.0
    floor: Annotated[float, AllowInfNan(False), Gt(0), Le(0.1)] = 1e-4
    missing: Literal["gold", "drop", "refuse"] = "gold"
    words_of: str | None = None

    @property
    def has_words(self) -> bool:
        return self.words_of is not None

    @cached_property
    def _words(self) -> Path:
        """Return the folder of the model that ``words_of`` names."""
        if self.words_of is None:
            self._refuse("tokenizer or word table")
        return local_model(resolve(self.words_of), "the model of teacher.words_of,")

    @property
    def name_or_path(self) -> str:
        return Path(self.path).name

    def table(self, names: Sequence[str]) -> AnswersTable:
        """Return the answers for these classes.

        Raises:
            KDError: the file is missing or wrong.
        """
        if not Path(self.path).is_file():
            raise KDError(f"teacher.path: expected a file of answers, found none at '{self.path}'; check the path")
        return _read(self, tuple(names), Path(self.path).stat().st_mtime_ns)

    def taught(self, train: Dataset, names: Sequence[str]) -> Dataset:
        """Return the training rows that the file or a gold label can teach; log how many of each kind there are.

        Raises:
            KDError: no row has an answer; or ``missing=refuse`` and one has none.
        """
        answered = ~np.isnan(self.table(names).of(in_slices(train["text"]))).any(axis=1)
        gold = labels_of(train) >= 0
        if not answered.any():
            raise KDError(
                f"expected answers for the training texts in {self.path}, found none among {len(answered)} texts, of "
                f"which the first is {train[0]['text'][:60]!r}; give the answers for this data, or set teacher.text"
            )
        if (answered | gold).mean() < 0.5 and not answered[~gold].any():  # a whole transfer set would be left out
            raise KDError(
                f"expected answers for the {int((~gold).sum())} texts without a label in {self.path}, found none; "
                "leave transfer and data.unlabelled out, or give a file with their answers"
            )
        if self.missing == "refuse" and not answered.all():
            first = train[int(answered.argmin())]["text"][:60]
            raise KDError(
                f"{int((~answered).sum())} of {len(answered)} training rows have no answer in {self.path}, the first "
                f"is {first!r}; add them, or set teacher.missing to gold or drop"
            )
        kept = answered | gold if self.missing == "gold" else answered
        log.info(
            "teacher: %d of %d training rows have an answer in %s, %d are taught by gold alone, %d left out",
            *(answered.sum(), len(answered), self.name_or_path, (kept & ~answered).sum(), (~kept).sum()),
        )
        return train if kept.all() else train.select(np.flatnonzero(kept))

    def require(self, splits: Splits) -> None:
        self.table(splits.label_names)

    def ready(self, splits: Splits, outputs: Path, on: Devices = ONE_CPU) -> ReadyAnswers:
        """Return the answers, after their label order was checked on the rows that have a gold label.

        Raises:
            KDError: the file is wrong, or its classes have another order.
        """
        table = self.table(splits.label_names)
        for split in (splits.validation, splits.train):
            gold, logits = labels_of(split), table.of(in_slices(split["text"]))
            rows = (gold >= 0) & ~np.isnan(logits).any(axis=1)
            if rows.any():
                part = "validation" if split is splits.validation else "training"
                known = logits[rows], gold[rows]
                accuracy = check_label_order(self.path, *known, splits.label_names, part, is_file=True)
                log.info("teacher: %s is right on %.1f %% of %d %s rows", self.path, 100 * accuracy, rows.sum(), part)
                break
        settings = repr((file_sha256(Path(self.path)), self.text, self.label, self.temperature, self.floor))
        checksum = sha256(settings.encode()).hexdigest()
        return ReadyAnswers(self.name_or_path, table, checksum, {"answers": len(table.keys), "kind": table.kind})

    # What only a model has; `kd.config.contradictions` refuses it earlier.

    @property
    def max_length(self) -> int:
        return self._refuse("length")

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._words)

    @property
    def config(self) -> PretrainedConfig:
        return self._refuse("layers")

    @cached_property
    def word_table(self) -> torch.Tensor:
        return load_word_table(self._words)

    def tokens(self, texts: Sequence[str]) -> Ragged:
        return self._refuse("tokenizer")

    def sources(self, chosen: str | None = None) -> Mapping[str, Any]:
        return self._refuse("layers")

    def _refuse(self, what: str) -> NoReturn:
        raise KDError(f"teacher=answers is a file and has no {what}; {ADVICE}")


ADVICE = "set tokenizer=words embeddings=random method=distillation"


@lru_cache(maxsize=2)
def _read(answers: Answers, names: tuple[str, ...], changed: int) -> AnswersTable:
    """Read the file once for each version of it."""
    columns = (answers.text, answers.label)
    return read_answers(Path(answers.path), names, *columns, answers.encoding, answers.temperature, answers.floor)


@dataclass(frozen=True)
class ReadyAnswers:
    """The answers of a file, in the role of a trained teacher; see `kd.teacher.base.AnyReadyTeacher`."""

    name: str
    table: AnswersTable
    checksum: str
    facts: dict[str, Any]

    @property
    def members(self) -> list[ReadyTeacher]:
        return []

    def cached(self, wanted: Wanted) -> tuple[Columns, float]:
        """Return the logits, NaN for a row without an answer; if there is such a row, also which are ``answered``."""
        logits = self.live_logits(wanted.texts)
        answered = ~np.isnan(logits).any(axis=1)
        return {"logits": logits, **({} if answered.all() else {"answered": answered})}, 0.0

    def labelled_in(self, texts: Sequence[str], outputs: Path) -> float | None:
        return 0.0

    def live_logits(self, texts: Sequence[str]) -> np.ndarray:
        return self.table.of(in_slices(texts))

    def live(self, features: Collection[Feature] = ()) -> Source:
        raise KDError(f"teacher=answers is a file, without a model to run; {ADVICE} cache.use=true")

    def cost(self) -> dict[str, Any]:
        return {"name": self.name, "training_seconds": None}
