"""Evaluate a trained student on the validation and test rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from transformers import PreTrainedModel

from kd.assembly import Assembly
from kd.data.batching import LengthBucketSampler
from kd.measure.inference import all_logits
from kd.measure.metrics import fidelity_metrics, label_metrics
from kd.run.directory import RunDirectory


def evaluate(run: RunDirectory, student: PreTrainedModel, assembly: Assembly) -> dict[str, Any]:
    """Return the figures of student and teacher on validation and test, and write every prediction.

    Nothing else in a run reads the test split, and this does not with ``measure_test=false``.
    """
    figures, tables = {}, []
    for name in ("validation", "test") if assembly.config.get("measure_test", True) else ("validation",):
        encoded = assembly.encoded(name)
        batches = LengthBucketSampler(encoded.tokens.lengths, 256)
        logits = all_logits(student, (encoded[batch] for batch in batches), len(encoded))
        teacher = assembly.teacher_logits(name)
        found: dict[str, Any] = {"rows": len(encoded), **label_metrics(logits, encoded.labels)}
        columns = {
            "split": [name] * len(encoded),
            "index": np.arange(len(encoded)),
            "line": np.asarray(getattr(assembly.splits, name)["line"]),
            "label": encoded.labels,
            "logits": list(logits),
        }
        if teacher is not None:
            answered = np.isfinite(np.asarray(teacher)).all(axis=1)  # a teacher that is a file may lack rows
            found |= compared(logits, np.asarray(teacher), encoded.labels, answered)
            kept = list(np.asarray(teacher)) if answered.all() else [None] * len(encoded)
            columns["teacher_logits"] = pyarrow.array(kept, pyarrow.list_(pyarrow.float32()))
        figures[name] = found
        tables.append(pyarrow.table(columns))
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), run.predictions_file)
    return figures


def compared(logits: np.ndarray, teacher: np.ndarray, labels: np.ndarray, answered: np.ndarray) -> dict[str, Any]:
    """Return the agreement of student and teacher, and the teacher's own figures, on the rows that it answered."""
    if not answered.any():
        return {}
    own: dict[str, Any] = label_metrics(teacher[answered], labels[answered])
    if not answered.all():
        own["rows"] = int(answered.sum())
    return {**fidelity_metrics(logits[answered], teacher[answered]), "teacher": own}
