"""Take the label away from all but a few training rows, to see what few labels and much text are worth."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import numpy as np

from kd.contract import IGNORED_LABEL
from kd.data.splits import Splits
from kd.data.store import dataset_of
from kd.errors import KDError


def with_labels(splits: Splits, number: int) -> Splits:
    """Return splits in which only ``number`` training rows have a label; the others stay as rows without one.

    A hash of the text chooses them, so that a smaller number chooses some of those that a larger one chooses.

    Raises:
        KDError: fewer rows have a label, or one of the labels is not among those of the chosen rows.
    """
    table = splits.train.with_format("arrow")[:]
    labels = table["label"].to_numpy().copy()
    labelled = np.flatnonzero(labels != IGNORED_LABEL)
    if number > len(labelled):
        raise KDError(
            f"data.labelled: expected at most the {len(labelled):,} training rows that have a label, got {number:,}; "
            "lower it or leave it out"
        )
    texts = table["text"].take(labelled).to_pylist()
    order = np.argsort([hashlib.sha256(f"labelled/{text}".encode()).digest() for text in texts], kind="stable")
    labels[labelled[order[number:]]] = IGNORED_LABEL
    found = {name: int((labels == at).sum()) for at, name in enumerate(splits.label_names)}
    if lacking := [name for name, count in found.items() if not count]:
        raise KDError(
            f"data.labelled={number}: expected rows of each label, found none of {', '.join(lacking)}; raise it"
        )
    train, checksum = dataset_of(table, labels)
    counts = copy.deepcopy(splits.counts)
    counts["unlabelled"] += len(labelled) - number
    counts["splits"]["train"] |= {"labels": found, "unlabelled": int((labels == IGNORED_LABEL).sum())}
    counts["splits"]["train"]["sha256"] = checksum
    return replace(splits, train=train, counts=counts)
