"""The teacher, the student and the rows of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from kd.classifier import Classifier, label_order
from kd.data.batching import EncodedSplit, LengthBucketSampler, labels_of, tokenize
from kd.errors import KDError
from kd.export import folder
from kd.export.classifier import Exported
from kd.features.feature import Feature
from kd.features.matching import shape_of
from kd.measure.cost import parameter_counts
from kd.measure.inference import outputs_by_row
from kd.predictor import Predictor
from kd.storage.files import read_json

MOST_ROWS, MOST_TRAINING_ROWS = 1_500, 20_000
"""Rows of a split that both models read, and training rows of the bag of words."""
LEAST_ROWS = 10
BATCH = 64


@dataclass(frozen=True)
class Sample:
    """The rows on which two models are compared.

    Args:
        source: their name.
        texts, labels: training rows ``[N]`` with a gold label, in random order, at most `MOST_TRAINING_ROWS`.
        held_texts, held_labels: labelled rows that no model was trained on.
        label_names: in the order of the label ids.
        labelled, unlabelled: how many rows the student learns from.
    """

    source: str
    texts: Sequence[str]
    labels: np.ndarray
    held_texts: Sequence[str]
    held_labels: np.ndarray
    label_names: Sequence[str]
    labelled: int
    unlabelled: int = 0

    @classmethod
    def of(cls, train: Dataset, held: Dataset, label_names: Sequence[str], source: str, unlabelled: int = 0) -> Sample:
        """Draw the rows of two splits, always the same ones.

        Raises:
            KDError: too few of them have a label, or all have the same.
        """

        def drawn(split: Dataset, most: int) -> tuple[list[str], np.ndarray, int]:
            labels = labels_of(split)
            known = np.flatnonzero(labels >= 0)
            chosen = np.random.default_rng(0).permutation(known)[:most]
            return list(split.select(chosen)["text"]), labels[chosen], len(known)

        texts, labels, labelled = drawn(train, MOST_TRAINING_ROWS)
        held_texts, held_labels, _ = drawn(held, MOST_ROWS)
        if min(labelled, len(held_texts)) < LEAST_ROWS or len(set(labels.tolist())) < 2:
            raise KDError(
                f"expected at least {LEAST_ROWS} training and {LEAST_ROWS} held-out rows with labels, of two classes, "
                f"found {labelled} and {len(held_texts)} of {len(set(labels.tolist()))} ({source}); give labelled rows"
            )
        unlabelled += len(train) - labelled
        return cls(source, texts, labels, held_texts, held_labels, label_names, labelled, unlabelled)


class Outputs(NamedTuple):
    """What a model answers to N rows: logits ``[N, C]``, and each layer's mean vector of a text, ``[N, d]``."""

    logits: np.ndarray
    layers: list[np.ndarray]


@dataclass(frozen=True)
class Side:
    """The teacher or the student of a comparison.

    Args:
        name: as it is shown.
        classifier: any of `kd.classifier`.
        label_names: the order of its logits here.
        answers: False for a model whose head is not trained for this task.
        trained: False for a student before training.

    Raises:
        KDError: it has other labels.
    """

    name: str
    classifier: Classifier
    label_names: Sequence[str]
    answers: bool = True
    trained: bool = True

    def __post_init__(self) -> None:
        _ = self.order

    @cached_property
    def order(self) -> list[int]:
        """Return the place of each label in the model's own logits."""
        places = list(range(len(self.label_names)))
        return label_order(self.classifier.label_names, self.label_names, self.name) if self.answers else places

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, also of an export."""
        if isinstance(self.classifier, Predictor):
            return self.classifier.tokenizer
        place = cast(Exported, self.classifier).path / folder.TOKENIZER
        return PreTrainedTokenizerFast(tokenizer_file=str(place), unk_token=read_json(place)["model"].get("unk_token"))

    @cached_property
    def layers(self) -> list[Feature]:
        """Return the hidden states that the model gives, the embeddings first; none of a bag or of an export."""
        if not isinstance(self.classifier, Predictor):
            return []
        model = self.classifier.model
        if "hidden_states" not in getattr(model.config, "supported_outputs", {"hidden_states"}):
            return []
        return [Feature("hidden_states", place, "mean") for place in range(len(shape_of(model).widths))]

    @cached_property
    def parameters(self) -> dict[str, int] | None:
        """Return the counts of `kd.measure.cost.parameter_counts`; None where they are not known."""
        known = isinstance(self.classifier, Predictor) and (self.trained or self.layers)
        return parameter_counts(cast(Predictor, self.classifier).model) if known else None

    def outputs(self, texts: Sequence[str]) -> Outputs:
        """Run the model over texts."""
        if not self.layers:
            return Outputs(self.classifier.logits(texts, BATCH)[:, self.order], [])
        reader = cast(Predictor, self.classifier)
        tokens = tokenize(reader.tokenizer, texts, reader.max_length)
        split = EncodedSplit(tokens, np.full(len(tokens), -100), reader.tokenizer.pad_token_id)
        batches = (split[batch] for batch in LengthBucketSampler(tokens.lengths, BATCH))
        rows, logits, states = zip(*outputs_by_row(reader.model, batches, self.layers), strict=True)
        back = np.argsort(np.concatenate(rows))
        layers = [np.concatenate([found[layer] for found in states])[back] for layer in self.layers]
        return Outputs(np.concatenate(logits)[back][:, self.order], layers)
