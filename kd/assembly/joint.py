"""Joint training: the partners that learn beside the student."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.assembly.base import Assembly
from kd.config import build
from kd.data.batching import EncodedSplit, LengthBucketSampler, labels_of
from kd.data.sources import Splits
from kd.features.feature import Feature
from kd.measure.cost import parameter_counts
from kd.measure.inference import all_logits
from kd.measure.metrics import label_metrics
from kd.methods.base import Method
from kd.models.pretrained import freeze_lowest, require_depth, upper_part
from kd.runtime.devices import Devices
from kd.storage.model_folder import load_classifier
from kd.teacher.ready import ReadyTeacher, require_room
from kd.teacher.teacher import Teacher


@final
class JointAssembly(Assembly):
    """Partners that learn beside the student: the teacher, or peers."""

    def __init__(self, config: DictConfig, splits: Splits, teacher: Teacher | None):
        super().__init__(config, splits, teacher)
        self.frozen = None
        if teacher is not None:
            require_depth(teacher.config, self.options.frozen_layers)
            if config.cache.use:
                self.frozen = Feature("hidden_states", self.options.frozen_layers)
                tokens = len(teacher.tokens(splits.train["text"]).values)
                require_room(teacher.config, [self.frozen], len(splits.train), tokens, "train", config.cache.max_gb)
        nodes = {**{f"copy_{n}": config.student for n in range(1, self.options.copies + 1)}, **config.peers}
        self.partners = {
            name: build.student(config, self.tokenizer, splits.label_names, teacher, node, config.seed + 1000 * place)
            for place, (name, node) in enumerate(nodes.items(), start=1)
        }

    def ready_teacher(self) -> ReadyTeacher | None:
        if self.teacher is None or self.options.teacher_start == "warm":
            return super().ready_teacher()
        return self.teacher.untrained(Devices.of(self.config))

    def method(self) -> Method:
        ready = self.answers.teacher
        if ready is not None:
            torch.manual_seed(self.config.seed)
            # a copy: the teacher of the store stays as it was
            teacher = load_classifier(ready.folder, new_head=True, **build.label_settings(self.splits.label_names))
            freeze_lowest(teacher, self.options.frozen_layers)
            self.partners = {"teacher": teacher, **self.partners}
        learners, column = self.partners, None
        if self.frozen:
            learners = self.partners | {"teacher": upper_part(teacher, self.frozen.layer)}
            column = self.frozen.column
        objective = self._objective()
        self.joint = build.method(
            self.config, self.student, objective=objective, partners=learners, options=self.options, column=column
        )
        return self.joint

    def train(self) -> EncodedSplit:
        return self._with_states("train")

    def validation(self) -> EncodedSplit:
        return self._with_states("validation")

    def _with_states(self, name: str) -> EncodedSplit:
        """The split with the teacher's tokens, and the output of its frozen layers where the cache holds it."""
        encoded = self._with_tokens(name)
        if self.frozen is None:
            return encoded
        return self.answers.with_features(encoded, getattr(self.splits, name), name, [self.frozen])

    def _with_tokens(self, name: str) -> EncodedSplit:
        encoded = self.encoded(name)
        if self.answers.teacher is None:
            return encoded
        return self.answers.with_tokens(encoded, getattr(self.splits, name))

    def teacher_cost(self, texts: list[str]) -> dict[str, Any] | None:
        ready = self.answers.teacher
        if ready is None or ready.has_head:  # as large and as fast as before
            return super().teacher_cost(texts)
        return ready.cost(texts, self.partners["teacher"])

    def teacher_logits(self, name: str) -> np.ndarray | None:
        """Of the teacher as joint training left it."""
        return self._logits("teacher", name) if "teacher" in self.partners else None

    def _logits(self, partner: str, name: str) -> np.ndarray:
        split = self._with_tokens(name)
        if partner == "teacher":
            split = EncodedSplit(split.teacher_tokens, split.labels, split.teacher_padding)
        rows = LengthBucketSampler(split.tokens.lengths, 128)
        return all_logits(self.partners[partner], (split[batch] for batch in rows), len(split))

    def figures(self) -> dict[str, Any]:
        labels = labels_of(self.splits.validation)
        found = {}
        for before, (name, model) in zip(self.joint.accuracy_before.tolist(), self.partners.items(), strict=True):
            accuracy = label_metrics(self._logits(name, "validation"), labels)["accuracy"]
            figures = {"validation_accuracy_before": before, "validation_accuracy": accuracy}
            found[name] = {"parameters": parameter_counts(model), **figures}
        return {"partners": found}

    def models_to_keep(self) -> dict[str, tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
        if not self.options.keep_partners:
            return {}
        return {
            name: (model, self.answers.teacher.tokenizer if name == "teacher" else self.tokenizer)
            for name, model in self.partners.items()
        }
