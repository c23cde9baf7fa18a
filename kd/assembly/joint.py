"""The parts of a joint run."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast, final

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
from kd.methods.joint import Joint
from kd.models.pretrained import freeze_lowest, require_depth, upper_part
from kd.options.methods import JointOptions
from kd.runtime.devices import Devices
from kd.storage.model_folder import load_classifier
from kd.teacher.base import AnyReadyTeacher, AnyTeacher
from kd.teacher.teacher import Teacher


@final
class JointAssembly(Assembly):
    """A run in which the student's partners learn too: the teacher, or peers."""

    options: JointOptions

    def __init__(self, config: DictConfig, splits: Splits, teacher: AnyTeacher | None):
        super().__init__(config, splits, teacher)
        self.frozen = None
        if teacher is not None:
            require_depth(teacher.config, self.options.frozen_layers)
            if config.cache.use:
                self.frozen = Feature("hidden_states", self.options.frozen_layers)
                self.require_room(teacher, [self.frozen])
        nodes = {**{f"copy_{n}": config.student for n in range(1, self.options.copies + 1)}, **config.peers}
        self.peers = {
            name: build.student(config, self.tokenizer, splits.label_names, teacher, node, config.seed + 1000 * place)
            for place, (name, node) in enumerate(nodes.items(), start=1)
        }

    def learners(self) -> dict[PreTrainedModel, int]:
        seeds = {peer: self.config.seed + 1000 * place for place, peer in enumerate(self.peers.values(), start=1)}
        return super().learners() | seeds

    def _ready(self, teacher: AnyTeacher) -> AnyReadyTeacher:
        if self.options.teacher_start == "warm":
            return super()._ready(teacher)
        assert isinstance(teacher, Teacher), "kd.config.contradictions refuses a cold start of any other"
        return teacher.untrained(Devices.of(self.config))

    @cached_property
    def partners(self) -> dict[str, PreTrainedModel]:
        """Return the models that learn with the student, by name."""
        if self.outputs.teacher is None:
            return self.peers
        torch.manual_seed(self.config.seed)
        # a copy, so that the stored teacher does not change
        teacher = load_classifier(self.outputs.single.folder, new_head=True, label_names=self.splits.label_names)
        freeze_lowest(teacher, self.options.frozen_layers)
        return {"teacher": teacher, **self.peers}

    @cached_property
    def method(self) -> Method:
        _ = self.student  # first: what refuses it must be found before the teacher is fine-tuned
        learners, column = self.partners, None
        if self.frozen:
            learners = learners | {"teacher": upper_part(self.partners["teacher"], self.frozen.layer)}
            column = self.frozen.column
        return self.taught(partners=learners, column=column)

    def read(self, name: str) -> EncodedSplit:
        encoded, split = self.encoded(name), getattr(self.splits, name)
        if self.outputs.teacher is None:
            return encoded
        encoded = self.outputs.with_tokens(encoded, split)
        return self.outputs.with_features(encoded, split, name, [self.frozen]) if self.frozen else encoded

    def teacher_cost(self) -> dict[str, Any] | None:
        if self.outputs.teacher is None or self.outputs.single.has_head:  # training does not change its size
            return super().teacher_cost()
        return self.outputs.single.cost(self.partners["teacher"])

    def teacher_logits(self, name: str) -> np.ndarray | None:
        """Return the logits ``[N, C]`` of the teacher after joint training; None without a teacher."""
        return self._logits("teacher", name) if "teacher" in self.partners else None

    def _logits(self, partner: str, name: str) -> np.ndarray:
        split = self.encoded(name)
        if partner == "teacher":
            teacher, texts = self.outputs.single, getattr(self.splits, name)["text"]
            split = EncodedSplit(teacher.tokens(texts), split.labels, teacher.tokenizer.pad_token_id)
        rows = LengthBucketSampler(split.tokens.lengths, 128)
        return all_logits(self.partners[partner], (split[batch] for batch in rows), len(split))

    def figures(self) -> dict[str, Any]:
        labels, accuracies = labels_of(self.splits.validation), cast(Joint, self.method).accuracy_before.tolist()
        found = {}
        for before, (name, model) in zip(accuracies, self.partners.items(), strict=True):
            accuracy = label_metrics(self._logits(name, "validation"), labels)["accuracy"]
            figures = {"validation_accuracy_before": before, "validation_accuracy": accuracy}
            found[name] = {"parameters": parameter_counts(model), **figures}
        return {"partners": found}

    def models_to_keep(self) -> dict[str, tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
        if not self.options.keep_partners:
            return {}
        return {
            name: (model, self.outputs.single.tokenizer if name == "teacher" else self.tokenizer)
            for name, model in self.partners.items()
        }
