"""What each method needs around it: tokens, student, matched layers, partners, and the teacher's columns."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd import build
from kd.answers import Answers, check_members
from kd.data.batching import EncodedSplit, LengthBucketSampler, in_slices, labels_of
from kd.data.sources import Splits
from kd.data.streaming import StreamedSplit
from kd.errors import KDError
from kd.features import Feature, depth_of
from kd.inference import all_logits, latencies, parameter_counts
from kd.mapper import FittedMapper
from kd.methods.base import Method
from kd.methods.distillation import Distillation
from kd.methods.feature_mapping import ToStudent, ToTeacher, fitting_batches
from kd.methods.joint import Joint
from kd.methods.supervised import Supervised
from kd.metrics import label_metrics
from kd.model_folder import load_classifier
from kd.models.mapped import compose, mapped_config, teacher_share
from kd.models.pretrained import freeze_lowest, require_depth, upper_part
from kd.ready_teacher import ReadyTeacher, require_room
from kd.teacher import Teacher, labelled_rows
from kd.transfer import Transfer

log = logging.getLogger(__name__)


class Assembly(ABC):
    """A run before it trains. What can be wrong shows when it is made, before the teacher is fine-tuned.

    Args:
        config: of the run.
        splits: its rows.
        teacher: None for ``teacher=none``.
    """

    def __init__(self, config: DictConfig, splits: Splits, teacher: Teacher | None):
        self.config, self.splits, self.teacher = config, splits, teacher
        self.answers = Answers(None, Path(config.outputs), config.cache.use, config.cache.max_gb)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the student; learnt from all rows, so that a baseline has its counterpart's words."""
        texts = in_slices(self.splits.train["text"])
        if self.transfer is not None:
            texts = chain(texts, self.transfer.sample())
        return build.tokenizer(self.config, texts, self.teacher)

    @cached_property
    def transfer(self) -> Transfer | None:
        """The rows without a label that are streamed; None where all rows are in the training split."""
        return Transfer.of(self.config, self.splits) if self.config.data.get("stream") else None

    @cached_property
    def student(self) -> PreTrainedModel:
        """As training starts."""
        return build.student(self.config, self.tokenizer, self.splits.label_names, self.teacher)

    def ready_teacher(self) -> ReadyTeacher | None:
        """The teacher, ready to answer; fine-tuned if nobody has done it before.

        Raises:
            KDError: it was taken as it is, and has its labels in another order.
        """
        if self.teacher is None:
            return None
        splits, accelerator = self.splits, self.config.trainer.accelerator
        ready = self.teacher.ready(splits, Path(self.config.outputs), accelerator)
        check_members(ready, self.answers, splits)
        return ready

    @abstractmethod
    def method(self) -> Method:
        """What trains the student, after ``answers`` has its teacher."""

    def encoded(self, name: str) -> EncodedSplit:
        """A split as the student reads it."""
        split = getattr(self.splits, name)

        def facts() -> dict[str, Any]:
            own = type(self).tokenizer is Assembly.tokenizer
            return {"split": name, "rows": len(split), "own": own}  # supervised runs leave out rows without a label

        return build.once(
            "encoded",
            self.config,
            build.WORDS,
            lambda: build.encoded(split, self.tokenizer, self.config.data.max_length),
            facts,
        )

    def train(self) -> EncodedSplit | StreamedSplit:
        """The training split with what the method needs of the teacher."""
        return self.encoded("train")

    def validation(self) -> EncodedSplit:
        """The validation split with what the method needs of the teacher."""
        return self.encoded("validation")

    def teacher_logits(self, name: str) -> np.ndarray | None:
        """``[N, C]`` of the teacher that the student learnt from."""
        return self.answers.of(getattr(self.splits, name), name)

    def teacher_cost(self, texts: list[str]) -> dict[str, Any] | None:
        """What the teacher takes that the student learnt from."""
        return self.answers.cost(texts) if self.answers.teacher else None

    def figures(self) -> dict[str, Any]:
        """What the run's ``metrics.json`` holds beyond every method's figures."""
        return {}

    def models_to_keep(self) -> dict[str, tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
        """What the run made beyond the student, with its tokenizer; kept in ``partners/``."""
        return {}

    def _objective(self):
        return build.objective(self.config, len(self.splits.label_names))


@final
class Alone(Assembly):
    """Gold labels only: rows without one teach nothing here."""

    def __init__(self, config: DictConfig, splits: Splits, teacher: Teacher | None):
        super().__init__(config, splits, teacher)
        _ = self.tokenizer  # before the rows without a label go
        self.splits = replace(splits, train=labelled_rows(splits.train))

    def method(self) -> Method:
        return build.method(self.config, self.student)


@final
class Distilled(Assembly):
    """The teacher's logits beside the labels."""

    def method(self) -> Method:
        return build.method(self.config, self.student, objective=self._objective(), teacher=self.answers.source())

    def train(self) -> EncodedSplit | StreamedSplit:
        resident = self.answers.attached_to(self.encoded("train"), self.splits.train, "train")
        if self.transfer is None:
            return resident
        self.transfer.label(self.tokenizer, self.answers)
        return self.transfer.split(resident, self.tokenizer, self.answers)


@final
class Hinted(Assembly):
    """The student's features against the teacher's, layer by layer."""

    def __init__(self, config: DictConfig, splits: Splits, teacher: Teacher | None):
        super().__init__(config, splits, teacher)
        self.objective = self._objective()
        sources = teacher.sources(config.method.features_from)
        self.matchings = {
            member or "teacher": build.matching(config, self.objective.transfer, self.student, source.config, member)
            for member, source in sources.items()
        }
        self.features = frozenset().union(*(matching.features for matching in self.matchings.values()))
        for matching, source in zip(self.matchings.values(), sources.values(), strict=True):
            if matching.by_token:
                self._require_same_tokens(matching.by_token[0], source)
            if config.cache.use:
                tokens = len(source.tokens(splits.train["text"]).values) if matching.by_token else 0
                require_room(source.config, matching.features, len(splits.train), tokens, "train", config.cache.max_gb)

    def _require_same_tokens(self, loss: str, source: Teacher) -> None:
        """Refuse token-level terms between models that cut a text differently."""
        own, other = self.encoded("train").tokens, source.tokens(self.splits.train["text"])
        names = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        ids = np.array(source.tokenizer.convert_tokens_to_ids(names))
        if not np.array_equal(own.offsets, other.offsets) or not np.array_equal(ids[own.values], other.values):
            raise KDError(
                f"loss '{loss}' compares token by token, and student and teacher cut the texts differently; use "
                "tokenizer=teacher or tokenizer=restricted with one max_length for both, or a loss on one vector a "
                "text, such as hint"
            )

    def method(self) -> Method:
        return build.method(
            self.config,
            self.student,
            objective=self.objective,
            matchings=self.matchings,
            teacher=self.answers.source(self.features),
        )

    def train(self) -> EncodedSplit:
        return self.answers.attached_to(self.encoded("train"), self.splits.train, "train", self.features)

    def figures(self) -> dict[str, Any]:
        layers = {
            f"{teacher}/{name}": [list(pair) for pair in pairs]
            for teacher, matching in self.matchings.items()
            for name, pairs in matching.possible.items()
        }
        return {"layers": layers}


@final
class Composed(Assembly):
    """The teacher's vectors in place of the student's own embeddings; the teacher's tokenizer in place of its own."""

    def __init__(self, config: DictConfig, splits: Splits, teacher: Teacher | None):
        super().__init__(config, splits, teacher)
        if teacher.max_length != config.data.max_length:
            raise KDError(
                f"method.direction=to_student reads the texts as the teacher does, found data.max_length="
                f"{config.data.max_length} and teacher.max_length={teacher.max_length}; set both to one length"
            )
        log.info("to_student: the composition reads the teacher's tokens, whatever the tokenizer")
        self.objective = self._objective()
        depth = depth_of(teacher.config)
        self.layer = depth if config.method.layer is None else config.method.layer
        self.feature = Feature("hidden_states", self.layer)
        body = build.student_config(config.student, config, 1, 0, splits.label_names)
        mapped_config(teacher.config, self.layer, build.make(config.mapper), body)
        if config.cache.use:
            tokens = len(teacher.tokens(splits.train["text"]).values)
            require_room(teacher.config, [self.feature], len(splits.train), tokens, "train", config.cache.max_gb)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.teacher.tokenizer

    @cached_property
    def student(self) -> PreTrainedModel:
        config, names = self.config, self.splits.label_names
        body = build.student_config(config.student, config, 1, 0, names)
        torch.manual_seed(config.seed)
        return compose(self.answers.teacher.model, self.layer, build.make(config.mapper), body)

    def method(self) -> Method:
        self._fit_mapper()
        return build.method(
            self.config,
            self.student,
            objective=self.objective,
            column=self.feature.column,
            teacher=self.answers.source(),
        )

    def _fit_mapper(self) -> None:
        """Fit a closed-form mapper: on the features alone, or towards the word table that the student would have."""
        mapper = self.student.mapper
        if not isinstance(mapper, FittedMapper):
            return
        features, ids = [], []
        for batch in fitting_batches(self.train(), self.config.seed):
            mask = batch["attention_mask"].bool()
            found = batch.get(f"teacher_{self.feature.column}")
            if found is None:
                read = (batch[name].to(self.student.device) for name in ("input_ids", "attention_mask"))
                found = self.student.features_of(*read).cpu()
            features.append(found[mask].float())
            ids.append(batch["input_ids"][mask])
        if not mapper.needs_target:
            mapper.fit(torch.cat(features))
            return
        own = torch.zeros(len(self.tokenizer), mapper.out_size)
        table = build.word_table(self.config, own, self.tokenizer, self.teacher, self.config.seed)
        mapper.fit(torch.cat(features), table[torch.cat(ids)])

    def train(self) -> EncodedSplit:
        return self._with_features("train")

    def validation(self) -> EncodedSplit:
        return self._with_features("validation")

    def _with_features(self, name: str) -> EncodedSplit:
        return self.answers.attached_to(self.encoded(name), getattr(self.splits, name), name, [self.feature])

    def figures(self) -> dict[str, Any]:
        texts, max_length = self.splits.validation["text"][:200], self.config.data.max_length
        of_encoder, of_whole = latencies([self.student.encoder, self.student], self.tokenizer, texts, max_length)
        times = {"encoder_ms": of_encoder["p50_ms"], "whole_ms": of_whole["p50_ms"]}
        return {"teacher_inside": teacher_share(self.student) | {"layer": self.layer} | times}


@final
class Together(Assembly):
    """Partners that learn beside the student: the teacher, or peers."""

    def __init__(self, config: DictConfig, splits: Splits, teacher: Teacher | None):
        super().__init__(config, splits, teacher)
        self.frozen = None
        if teacher is not None:
            require_depth(teacher.config, config.method.frozen_layers)
            if config.cache.use:
                self.frozen = Feature("hidden_states", config.method.frozen_layers)
                tokens = len(teacher.tokens(splits.train["text"]).values)
                require_room(teacher.config, [self.frozen], len(splits.train), tokens, "train", config.cache.max_gb)
        nodes = {**{f"copy_{n}": config.student for n in range(1, config.method.copies + 1)}, **config.peers}
        self.partners = {
            name: build.student(config, self.tokenizer, splits.label_names, teacher, node, config.seed + 1000 * place)
            for place, (name, node) in enumerate(nodes.items(), start=1)
        }

    def ready_teacher(self) -> ReadyTeacher | None:
        if self.teacher is None or self.config.method.teacher_start == "warm":
            return super().ready_teacher()
        return self.teacher.untrained(self.config.trainer.accelerator)

    def method(self) -> Method:
        ready = self.answers.teacher
        if ready is not None:
            torch.manual_seed(self.config.seed)
            # a copy: the teacher of the store stays as it was
            teacher = load_classifier(ready.folder, new_head=True, **build.label_settings(self.splits.label_names))
            freeze_lowest(teacher, self.config.method.frozen_layers)
            self.partners = {"teacher": teacher, **self.partners}
        learners, column = self.partners, None
        if self.frozen:
            learners = self.partners | {"teacher": upper_part(teacher, self.frozen.layer)}
            column = self.frozen.column
        objective = self._objective()
        self.joint = build.method(self.config, self.student, objective=objective, partners=learners, column=column)
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
        if not self.config.method.keep_partners:
            return {}
        return {
            name: (model, self.answers.teacher.tokenizer if name == "teacher" else self.tokenizer)
            for name, model in self.partners.items()
        }


ASSEMBLIES: dict[type[Method], type[Assembly]] = {
    Supervised: Alone,
    Distillation: Distilled,
    ToTeacher: Hinted,
    ToStudent: Composed,
    Joint: Together,
}


def assemble(config: DictConfig, splits: Splits, teacher: Teacher | None) -> Assembly:
    """The run of this configuration, ready for its teacher."""
    return ASSEMBLIES[build.method_class(config)](config, splits, teacher)
