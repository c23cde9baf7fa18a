"""The parts of a composition run."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any, final

import torch
from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.assembly.base import Assembly
from kd.config import build
from kd.config.make import make
from kd.data.batching import EncodedSplit
from kd.data.sources import Splits
from kd.errors import KDError
from kd.features.feature import Feature, depth_of
from kd.features.fitted_mapper import FittedMapper
from kd.measure.cost import Reader, latency, times_in_turns
from kd.methods.base import Method
from kd.methods.hints import fitting_batches
from kd.models.composition import ComposedStudent, compose, composed_config, teacher_share, word_size
from kd.options.methods import CompositionOptions
from kd.run.identity import TOWARDS_WORDS
from kd.teacher.base import AnyTeacher

log = logging.getLogger(__name__)


@final
class CompositionAssembly(Assembly):
    """A run whose student is the teacher's lower layers, a mapper and a small body; it has the teacher's tokenizer."""

    options: CompositionOptions
    teacher: AnyTeacher  # kd.config.contradictions refuses teacher=none

    def __init__(self, config: DictConfig, splits: Splits, teacher: AnyTeacher | None):
        super().__init__(config, splits, teacher)
        if self.teacher.max_length != config.data.max_length:
            raise KDError(
                f"method=composition reads the texts as the teacher does, found data.max_length="
                f"{config.data.max_length} and teacher.max_length={self.teacher.max_length}; set both to one length"
            )
        log.info("the composition reads the teacher's tokens, whatever the tokenizer")
        depth = depth_of(self.teacher.config)
        self.layer = depth if self.options.layer is None else self.options.layer
        self.feature = Feature("hidden_states", self.layer)
        body = build.student_config(config.student, config, 1, 0, splits.label_names)
        composed = composed_config(self.teacher.config, self.layer, make(config.mapper), body)
        self.words = self._words(word_size(composed)) if config.mapper._target_ in TOWARDS_WORDS else None
        self.require_room(self.teacher, [self.feature])

    def _words(self, width: int) -> torch.Tensor:
        """Return the word table that the student would have, to which some mappers are fitted."""
        own = torch.zeros(len(self.tokenizer), width)
        return build.word_table(self.config, own, self.tokenizer, self.teacher, self.config.seed)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.teacher.tokenizer

    @cached_property
    def student(self) -> ComposedStudent:
        config = self.config
        body = build.student_config(config.student, config, 1, 0, self.splits.label_names)
        torch.manual_seed(config.seed)
        return compose(self.outputs.single.model, self.layer, make(config.mapper), body)

    def learners(self) -> dict[PreTrainedModel, int]:
        return {}  # the body reads no words

    def share(self) -> None:
        for name in ("train", "validation", "test"):
            self.encoded(name)  # there are no word embeddings to share

    @cached_property
    def method(self) -> Method:
        self._fit_mapper()
        return self.taught(teacher=self.outputs.source())

    def _fit_mapper(self) -> None:
        """Fit a closed-form mapper: to the features alone, or to the word embeddings that the student would have."""
        mapper = self.student.mapper
        if not isinstance(mapper, FittedMapper):
            return
        features, ids = [], []
        for batch in fitting_batches(self.read("train"), self.config.seed):
            mask = batch["attention_mask"].bool()
            found = batch.get(f"teacher_{self.feature.column}")
            if found is None:
                read = (batch[name].to(self.student.device) for name in ("input_ids", "attention_mask"))
                found = self.student.features_of(*read).cpu()
            features.append(found[mask].float())
            ids.append(batch["input_ids"][mask])
        target = None
        if mapper.needs_target:
            words = self._words(mapper.out_size) if self.words is None else self.words
            target = words[torch.cat(ids)]
        mapper.fit(torch.cat(features), target)

    def read(self, name: str) -> EncodedSplit:
        return self.attached(name, [self.feature])

    def figures(self) -> dict[str, Any]:
        texts, max_length = self.splits.validation["text"][:200], self.config.data.max_length
        sides = [[Reader(model, self.tokenizer, max_length)] for model in (self.student.encoder, self.student)]
        encoder, whole = (latency(times)["p50_ms"] for times in times_in_turns(sides, texts))
        times = {"encoder_ms": encoder, "whole_ms": whole}
        return {"teacher_inside": teacher_share(self.student) | {"layer": self.layer} | times}
