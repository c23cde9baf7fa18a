"""Read learning curves from ``metrics.csv``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv

from kd.report.arms import Arm


def validation_curve(path: Path) -> dict[int, float]:
    """Return validation accuracy by epoch, counted from 1; empty without a file that can be read."""
    try:
        table = pyarrow.csv.read_csv(path)
        epochs, values = (table[name].to_pylist() for name in ("epoch", "val/accuracy"))
    except (OSError, KeyError, pyarrow.ArrowException):
        return {}
    return {
        int(epoch) + 1: float(value)
        for epoch, value in zip(epochs, values, strict=True)
        if isinstance(value, float | int) and isinstance(epoch, float | int)
    }


def over_seeds(arm: Arm) -> np.ndarray:
    """Return ``[E, 5]``: epoch, mean, lowest, highest and number of seeds, for the epochs that some seed reached."""
    curves = [validation_curve(run.directory.path / "metrics.csv") for run in arm.runs]
    rows = []
    for epoch in sorted({epoch for curve in curves for epoch in curve}):
        values = [curve[epoch] for curve in curves if epoch in curve]
        rows.append((epoch, np.mean(values), min(values), max(values), len(values)))
    return np.array(rows).reshape(-1, 5)
