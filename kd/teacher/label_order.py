"""Check that a teacher counts its labels in the order of the data."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from kd.data.batching import labels_of
from kd.data.sources import Splits
from kd.errors import KDError
from kd.teacher.outputs import Answers
from kd.teacher.ready import ReadyTeacher

log = logging.getLogger(__name__)


def check_members(teacher: ReadyTeacher, answers: Answers, splits: Splits) -> None:
    """Check the label order of those that were not trained here; see `check_label_order`."""
    for member in teacher.members:
        if not member.facts:
            logits = replace(answers, teacher=member).of(splits.validation, "validation")
            accuracy = check_label_order(member.name, logits, labels_of(splits.validation), splits.label_names)
            log.info("teacher: %s is right on %.1f %% of the validation rows", member.name, 100 * accuracy)


def check_label_order(name: str, logits: np.ndarray, labels: np.ndarray, label_names: list[str]) -> float:
    """The accuracy of a teacher on labelled rows, refused where its labels stand in another order.

    Args:
        logits: ``[N, C]``.
        labels: ``[N]``, all of them valid.

    Raises:
        KDError: if another order of the labels fits clearly better.
    """
    classes = len(label_names)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (logits.argmax(axis=1), labels), 1)
    accuracy = float(np.trace(counts) / len(labels))
    order = linear_sum_assignment(counts, maximize=True)[1]
    best = counts[range(classes), order].sum() / len(labels)
    if best > accuracy + 2 / np.sqrt(len(labels)):  # beyond what chance does to so few rows
        names = ", ".join(label_names[label] for label in order)
        raise KDError(
            f"teacher '{name}' is right on {accuracy:.1%} of the validation rows, and would be on {best:.1%} "
            f"with its labels in the order [{names}]; where the data names its labels, set "
            f"data.label_names=[{names}]; where it numbers them, reorder the teacher's head or fine-tune it"
        )
    return accuracy
