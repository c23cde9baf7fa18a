"""Check that a teacher's labels have the order of the data's labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from kd.data.batching import labels_of
from kd.data.sources import Splits
from kd.errors import KDError
from kd.teacher.base import AnyReadyTeacher
from kd.teacher.outputs import TeacherOutputs

log = logging.getLogger(__name__)


def check_members(teacher: AnyReadyTeacher, outputs: TeacherOutputs, splits: Splits) -> None:
    """Check the label order of each member that kd did not train; see `check_label_order`."""
    for member in teacher.members:
        if not member.facts:
            logits = replace(outputs, teacher=member).logits(splits.validation, "validation")
            accuracy = check_label_order(member.name, logits, labels_of(splits.validation), splits.label_names)
            log.info("teacher: %s is right on %.1f %% of the validation rows", member.name, 100 * accuracy)


def check_label_order(
    name: str,
    logits: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str],
    rows: str = "validation",
    is_file: bool = False,
) -> float:
    """Return the accuracy of a teacher on labelled rows; refuse a teacher whose labels have another order.

    Args:
        name: of the teacher, for the message.
        logits: ``[N, C]``.
        labels: ``[N]``, each in [0, C).
        label_names: C of them.
        rows: the split that they are from, for the message.
        is_file: whether the teacher is a file of answers.

    Raises:
        KDError: another order of the labels fits clearly better.
    """
    classes = len(label_names)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (logits.argmax(axis=1), labels), 1)
    accuracy = float(np.trace(counts) / len(labels))
    order = linear_sum_assignment(counts, maximize=True)[1]
    best = counts[range(classes), order].sum() / len(labels)
    if best > accuracy + 2 / np.sqrt(len(labels)):  # a smaller difference may be chance
        names = ", ".join(label_names[label] for label in order)
        advice = f"where the data names its labels, set data.label_names=[{names}]; where it numbers them, " + (
            "reorder the answers of the file" if is_file else "reorder the teacher's head or fine-tune it"
        )
        raise KDError(
            f"teacher '{name}' is right on {accuracy:.1%} of {len(labels)} {rows} rows, and would be on {best:.1%} "
            f"with its labels in the order [{names}]; {advice}"
        )
    return accuracy
