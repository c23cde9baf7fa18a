"""Find the training rows that are nearest to a text in the student's own representation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from omegaconf import OmegaConf
from sklearn.neighbors import NearestNeighbors

from kd.config.build import given_rows
from kd.config.check import check_data
from kd.contract import IGNORED_LABEL
from kd.data.batching import EncodedSplit, LengthBucketSampler, tokenize
from kd.data.splits import text_keys
from kd.errors import KDError
from kd.explanation.attribution import Model
from kd.features.feature import Feature
from kd.measure.inference import outputs_by_row
from kd.predictor import Predictor
from kd.run.directory import RunDirectory

log = logging.getLogger(__name__)

LAST = Feature("hidden_states", -1, "mean")
"""The input of the head of kd's own students, which have one last state; the mean of the last states of others."""


def vectors(model: Model, texts: Sequence[str]) -> np.ndarray | None:
    """Return the representations of texts ``[N, d]``; None for a model that has no inner states."""
    predictor = model.classifier
    if not isinstance(predictor, Predictor):
        return None
    outputs = getattr(predictor.model.config, "supported_outputs", {"hidden_states"})
    if "hidden_states" not in outputs:
        return None
    tokens = tokenize(predictor.tokenizer, texts, predictor.max_length)
    split = EncodedSplit(tokens, np.full(len(tokens), IGNORED_LABEL), predictor.tokenizer.pad_token_id)
    batches = (split[batch] for batch in LengthBucketSampler(tokens.lengths, model.batch_size))
    rows, found = zip(
        *((index, states[LAST]) for index, _, states in outputs_by_row(predictor.model, batches, [LAST])), strict=True
    )
    return np.concatenate(found)[np.argsort(np.concatenate(rows))]


def training_rows(run: RunDirectory) -> Dataset:
    """Read the training rows of a run, with the texts of its transfer set so far as they are on disk.

    Raises:
        KDError: the rows cannot be read.
    """
    config = OmegaConf.create(run.config())
    made = run.environment()["data"]["counts"].get("transfer_set")
    files = sorted(Path(made["folder"]).glob("*.parquet")) if made else []
    if made and not files:
        log.warning("the transfer set is not in '%s' any more; its texts are left out", made["folder"])
    if files:
        given = config.data.get("unlabelled") or []
        config.data.unlabelled = [*([given] if isinstance(given, str) else given), *map(str, files)]
    check_data(config)
    return given_rows(config).train


def nearest(model: Model, texts: Sequence[str], rows: Dataset, count: int) -> list[list[dict[str, Any]]]:
    """Return for each text the training rows nearest to it, nearest first; the text itself is left out.

    Cosine similarity of the representations; for a model without inner states, the distance of its logits.

    Raises:
        KDError: there are fewer training rows than asked for.
    """
    known: list[str] = list(rows["text"])
    if count >= len(known):
        raise KDError(f"--neighbours: expected fewer than the {len(known)} training rows, got {count}; lower it")
    own, theirs = vectors(model, texts), vectors(model, known)
    metric = "euclidean" if own is None else "cosine"
    if own is None or theirs is None:
        own, theirs = model.logits(texts), model.logits(known)
    search = NearestNeighbors(n_neighbors=min(count + 1, len(known)), metric=metric).fit(theirs)
    found = []
    for text, distances, places in zip(texts, *search.kneighbors(own), strict=True):
        pairs = [(float(far), int(row)) for far, row in zip(distances, places, strict=True)]
        others = [(far, row) for far, row in pairs if text_keys(known[row]) != text_keys(text)][:count]
        labels = [rows[row]["label"] for _, row in others]
        found.append(
            [
                {
                    "text": known[row],
                    "label": None if label == IGNORED_LABEL else model.label_names[label],
                    "closeness": 1 - far if metric == "cosine" else -far,
                }
                for (far, row), label in zip(others, labels, strict=True)
            ]
        )
    return found
