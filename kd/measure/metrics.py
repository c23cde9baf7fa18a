"""Metrics of logits and labels."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_f1_score,
)


def label_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compare logits ``[N, C]`` with the gold labels ``[N]``.

    Returns:
        ``accuracy``, ``macro_f1``, ``balanced_accuracy`` (mean over the classes of the accuracy on their rows),
        ``auroc`` (area under the ROC curve of a class against all others, mean over the classes), ``nll`` (mean
        negative log-likelihood, nats), ``ece`` (expected calibration error, 15 equal-width bins).
    """
    scores, gold = torch.from_numpy(np.array(logits)).float(), torch.from_numpy(np.array(labels))
    classes = scores.shape[1]
    probabilities = scores.softmax(dim=1)
    return {
        "accuracy": multiclass_accuracy(scores, gold, classes, average="micro").item(),
        "macro_f1": multiclass_f1_score(scores, gold, classes, average="macro").item(),
        "balanced_accuracy": multiclass_accuracy(scores, gold, classes, average="macro").item(),
        "auroc": multiclass_auroc(probabilities, gold, classes, average="macro").item(),
        "nll": functional.cross_entropy(scores, gold).item(),
        "ece": multiclass_calibration_error(probabilities, gold, classes, n_bins=15).item(),
    }


def fidelity_metrics(logits: np.ndarray, teacher_logits: np.ndarray) -> dict[str, float]:
    """Compare a student's logits ``[N, C]`` with those of its teacher.

    Returns:
        ``agreement``, the share of rows with the same most probable label, and ``kl``, the mean of
        ``KL(p_teacher || p_student)`` in nats.

    Source: Stanton et al., Does Knowledge Distillation Really Work?, 2021, https://arxiv.org/abs/2106.05945
    """
    student = torch.from_numpy(np.array(logits)).float().log_softmax(dim=1)
    teacher = torch.from_numpy(np.array(teacher_logits)).float().log_softmax(dim=1)
    return {
        "agreement": (student.argmax(1) == teacher.argmax(1)).float().mean().item(),
        "kl": functional.kl_div(student, teacher, reduction="batchmean", log_target=True).item(),
    }
