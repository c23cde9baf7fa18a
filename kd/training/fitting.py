"""Say whether a student fits its training rows too closely (overfitting) or too little (underfitting), and what to try.

The accuracy on training rows is measured with the weights of the run, without dropout. The rules, in this order:

* underfitting: of the training rows that do not have the most frequent label, it has not even learnt the part
  `LEARNT`: its accuracy on training rows is below ``m + LEARNT (1 - m)``, with m the share of that label; not with
  another metric or with class weights, which may choose such a student;
* overfitting: the accuracy on training rows is at least `GAP` above that on validation, and more than two standard
  errors of the latter;
* underfitting: metric and loss on validation are both best in the last epoch, and the loss fell by `FALL` or more;
* neither: all else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from kd.data.batching import EncodedSplit, LengthBucketSampler
from kd.measure.inference import all_logits
from kd.run.curves import curves_in

GAP, LEARNT, FALL = 0.10, 0.10, 0.01
RISE = 0.05
"""A rise of the validation loss over its least, as a part of it, that is worth a word."""
MOST_ROWS, BATCH = 2000, 256
"""The training rows that are measured, at regular distances."""


def fitting(
    student: Any, train: EncodedSplit, figures: Mapping[str, Any], run: Path, config: Mapping[str, Any]
) -> dict:
    """Measure a trained student on its training rows, and compare.

    Args:
        student: with the weights of the run.
        train: its training rows; those without a label are not measured.
        figures: of the run, with ``validation`` and ``parameters``.
        run: its directory, which has ``metrics.csv``.
        config: of the run.

    Returns:
        ``verdict``, ``sentence``, ``train_accuracy``, ``gap`` (accuracy on train minus validation), ``rows`` (labelled
        training rows), ``best_epoch`` and ``epochs``, from 1.
    """
    labelled = np.flatnonzero(train.labels >= 0)
    some = labelled[:: max(1, -(-len(labelled) // MOST_ROWS))]
    batches = [some[batch] for batch in LengthBucketSampler(train.tokens.lengths[some], BATCH)]
    logits = all_logits(student, (train[batch.tolist()] for batch in batches), len(train))[some]
    accuracy = float((logits.argmax(axis=1) == train.labels[some]).mean())
    majority = float(np.bincount(train.labels[labelled]).max() / len(labelled))
    validation, metric = figures["validation"], f"val/{config.get('metric', 'accuracy')}"
    (values, epochs), (losses, when) = (curve(run / "metrics.csv", name) for name in (metric, "val/loss"))
    found = {
        "train_accuracy": accuracy,
        "gap": accuracy - validation["accuracy"],
        "rows": len(labelled),
        "best_epoch": epochs[int(np.argmax(values))] if values else None,
        "epochs": epochs[-1] if values else None,
    }
    noise = 2 * (validation["accuracy"] * (1 - validation["accuracy"]) / validation["rows"]) ** 0.5
    plain = config.get("metric", "accuracy") == "accuracy" and config.get("class_weights", "none") == "none"
    if plain and accuracy < majority + LEARNT * (1 - majority):
        best = f"{100 * accuracy:.1f} % of the training rows are correct, and {100 * majority:.1f} % have one label"
        verdict, sentence = "underfitting", f"It has learnt next to nothing: {best}. {advice(config, found['epochs'])}"
    elif found["gap"] >= GAP and found["gap"] > noise:
        verdict, sentence = "overfitting", too_closely(found, losses, when, figures, config)
    elif still_better(values, losses):
        last = "metric and loss on validation were best in the last epoch"
        verdict, sentence = "underfitting", f"It was still getting better: {last}. {advice(config, found['epochs'])}"
    else:
        verdict, sentence = "neither", f"Training rows {100 * accuracy:.1f} % correct, {of_validation(found)}."
    return {"verdict": verdict, "sentence": sentence, **found}


def curve(path: Path, name: str) -> tuple[list[float], list[int]]:
    """Return a column of ``metrics.csv``, a value a validation, and the epochs of these validations, from 1."""
    table = curves_in(path)
    found = table.dropna(subset=name) if name in table else pandas.DataFrame({name: [], "epoch": []})
    return found[name].tolist(), [int(epoch) + 1 for epoch in found["epoch"]]


def still_better(metric: Sequence[float], loss: Sequence[float]) -> bool:
    """Return whether the last epoch was the best in both, and its loss was clearly lower than the one before.

    >>> still_better([0.6, 0.7], [0.6, 0.5]), still_better([0.7, 0.7], [0.6, 0.5]), still_better([0.7], [0.5])
    (True, False, False)
    """
    if len(metric) < 2 or len(loss) != len(metric):
        return False
    return metric[-1] > max(metric[:-1]) and loss[-1] == min(loss) and loss[-1] <= (1 - FALL) * loss[-2]


def of_validation(found: Mapping[str, Any]) -> str:
    return f"{100 * found['gap']:+.1f} points against validation"


def too_closely(
    found: Mapping[str, Any],
    loss: Sequence[float],
    epochs: Sequence[int],
    figures: Mapping[str, Any],
    config: Mapping[str, Any],
) -> str:
    """Say by how much a student fits its training rows too closely, and name options that act against it."""
    total, words = figures["parameters"]["total"], []
    if loss and loss[-1] > (1 + RISE) * min(loss):
        words.append(
            f"the validation loss rose from {min(loss):.3f} in epoch {epochs[int(np.argmin(loss))]} to {loss[-1]:.3f}"
        )
    words.append(f"{total:,} parameters for {found['rows']:,} labelled rows")
    student = config.get("student") or {}
    given = {name: student[name] for name in ("dropout", "word_dropout") if name in student}
    options = [f"student.{name}={more}" for name, value in given.items() if (more := raised(value)) > value]
    options += ["label_smoothing=0.1"] if not config.get("label_smoothing") else []
    options += ["callbacks=[checkpoint,early_stopping,progress]"] if "early_stopping" not in config["callbacks"] else []
    options += ["data.unlabelled=FILES with a teacher"] if not config["data"].get("unlabelled") else []
    return (
        f"Training rows {100 * found['train_accuracy']:.1f} % correct, {of_validation(found)}; {'; '.join(words)}. "
        f"Try {', '.join(options) or 'a smaller student'}."
    )


def raised(probability: float) -> float:
    """Return a larger probability of dropping.

    >>> raised(0.0), raised(0.3), raised(0.65)
    (0.1, 0.4, 0.7)
    """
    return min(0.7, round(probability + 0.1, 2))


def advice(config: Mapping[str, Any], epochs: int | None) -> str:
    """Name options that let a student learn more."""
    rate, most = config["optim"]["optimizer"].get("lr"), config["trainer"].get("max_epochs")
    longer = f"trainer.max_epochs={2 * most}" if epochs and most else "a larger trainer.max_steps"
    now = f" (now {rate:g})" if rate else ""
    return f"Try {longer}, a larger optim.optimizer.lr{now}, a wider student, or less dropout."
