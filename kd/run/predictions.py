"""Read the predictions of a finished run. Needs no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from kd.errors import KDError
from kd.run.directory import RunDirectory

BATCH = 4096
"""Rows that are read at a time."""

MOST_ROWS, MOST_CLASSES = 10_000_000, 10_000
"""Largest numbers of predictions of a run, where an early kd did not record the true ones."""


@dataclass(frozen=True, eq=False)
class Split:
    """The outputs of a model on the rows of a split.

    Args:
        labels: ``[N]``, gold.
        logits: ``[N, C]``.
        teacher: the outputs of the model's teacher on the same rows, where there is one.
    """

    labels: np.ndarray
    logits: np.ndarray
    teacher: Split | None = None

    @property
    def predicted(self) -> np.ndarray:
        """``[N]``, the labels that the model gives."""
        return self.logits.argmax(axis=1)

    @cached_property
    def correct(self) -> np.ndarray:
        """``[N]`` bool: the label of the model is the gold one."""
        return self.predicted == self.labels


def of_run(
    run: RunDirectory, metrics: dict[str, Any], environment: dict[str, Any], shared: dict[bytes, np.ndarray]
) -> dict[str, Split]:
    """Read the splits of a run.

    Args:
        run: its directory.
        metrics, environment: its figures, and what it was made with.
        shared: arrays of earlier runs. An array that equals one of them is not kept twice.

    Raises:
        KDError: the file is damaged.
    """
    rows = {name: (metrics.get(name) or {}).get("rows") for name in ("validation", "test")}
    label_names = (environment.get("data") or {}).get("label_names") or ()
    try:
        return read(run.predictions_file, shared, rows, len(label_names) or None)
    except KDError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError, pyarrow.ArrowException) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise KDError(f"'{run.predictions_file}' is damaged ({reason}); train the run again") from error


def read(
    path: Path, shared: dict[bytes, np.ndarray], rows: dict[str, int | None], classes: int | None
) -> dict[str, Split]:
    """Read the splits in a ``predictions.parquet``.

    Args:
        path: of the file.
        shared: equal arrays of earlier runs.
        rows: expected number of rows of each split, where it is known.
        classes: expected number of classes, where it is known.

    Raises:
        KDError: no test rows, other numbers of rows or classes, or logits that are not finite.
    """
    table, found = table_of(path, rows, classes), {}
    for name in ("validation", "test"):
        part = table.filter(pyarrow.compute.equal(table["split"], name))
        if not len(part):
            continue
        if len(part) != (rows[name] or len(part)):
            raise KDError(f"expected {rows[name]} {name} rows in '{path}', found {len(part)}; train it again")
        labels, logits = once(part["label"].to_numpy(), shared), matrix(part, "logits", path)
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= logits.shape[1]:
            raise KDError(f"expected labels from 0 to {logits.shape[1] - 1} in '{path}', found others; train it again")
        # A teacher that is a file may lack answers; then the column of the split is empty.
        taught = "teacher_logits" in part.column_names and part["teacher_logits"].null_count < len(part)
        teacher = Split(labels, once(matrix(part, "teacher_logits", path), shared)) if taught else None
        found[name] = Split(labels, logits, teacher)
    if "test" not in found:
        raise KDError(f"expected test rows in '{path}', found none; train it again, with measure_test=true")
    return found


def table_of(path: Path, rows: dict[str, int | None], classes: int | None) -> pyarrow.Table:
    """Read a file part by part, no further than its run's figures say: a few bytes may stand for millions of values.

    The sizes in the metadata of its columns are not asked for, because pyarrow ends the process where they are damaged.

    Raises:
        KDError: it is no ordinary file, or has more rows or logits than expected.
    """
    most = sum(count or 0 for count in rows.values()) if None not in rows.values() else MOST_ROWS
    widest = classes or MOST_CLASSES
    if not path.is_file():
        raise KDError(f"expected a file at '{path}', found none; train the run again")
    parts = []
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
        if (found := file.metadata.num_rows) > most:
            raise KDError(f"expected at most {most} rows in '{path}', found {found}; train the run again")
        for part in file.iter_batches(batch_size=BATCH, use_threads=False):
            part.validate(full=True)
            for name in ("logits", "teacher_logits"):
                if name in part.schema.names and len(part[name].flatten()) > len(part) * widest:
                    raise KDError(f"expected rows of at most {widest} {name} in '{path}', found more; train it again")
            parts.append(part)
    return pyarrow.Table.from_batches(parts)


def matrix(table: pyarrow.Table, name: str, path: Path) -> np.ndarray:
    """Turn a column of lists into ``[N, C]`` float32; the path is for the error message."""
    column = table[name].combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), -1)
    if (
        values.shape[1] < 2
        or column.null_count
        or set(column.value_lengths().unique().to_pylist()) != {values.shape[1]}
    ):
        raise KDError(f"expected rows of equally many {name} in '{path}', found others; train it again")
    if wrong := int((~np.isfinite(values)).sum()):
        raise KDError(
            f"expected finite {name} in '{path}', found {wrong} that are not; "
            "the run diverged: train it again with a smaller learning rate"
        )
    return values


def once(values: np.ndarray, shared: dict[bytes, np.ndarray]) -> np.ndarray:
    """Return the earlier array where an equal one was read before."""
    return shared.setdefault(hashlib.sha256(values.tobytes()).digest(), values)
