"""Read finished runs from disk, without torch."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from kd.errors import KDError
from kd.report.settings import of_files, settings
from kd.report.words import listed, plural
from kd.run.directory import RunDirectory

FIGURES = (
    *("student", "embeddings", "data", "seed", "test", "parameters", "model_bytes", "latency"),
    *("padding_share", "training_seconds", "weights"),
)
"""Keys that ``metrics.json`` must have."""


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


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Args:
        directory: its place on disk.
        method: the option of ``method=``.
        metrics, environment: as on disk.
        settings: flat keys of all that decides the result (`kd.report.settings`).
        test, validation: its outputs; validation is None where an early version of kd did not keep it.
        deterministic: whether the same seed promises the same weights.
    """

    directory: RunDirectory
    method: str
    metrics: dict[str, Any]
    environment: dict[str, Any]
    settings: dict[str, Any]
    test: Split
    validation: Split | None
    deterministic: bool

    @classmethod
    def read(cls, directory: RunDirectory, shared: dict[bytes, np.ndarray]) -> Run:
        """Read a run; equal arrays of several runs (labels, logits of the teacher) are kept once, in ``shared``.

        Raises:
            KDError: a file that is missing or damaged.
        """
        try:
            metrics, environment = directory.metrics(), directory.environment()
            if missing := [key for key in FIGURES if key not in metrics]:
                raise KDError(f"the run in '{directory.path}' lacks the figures {', '.join(missing)}; train it again")
            config, splits = directory.config(), read_predictions(directory.predictions_file, shared)
            check_figures(metrics, environment)
            method, deterministic = "" + config["choices"]["method"], config.get("trainer", {}).get("deterministic")
            decisive = settings(config) | of_files(config, environment, metrics)
            outputs = splits["test"], splits.get("validation")
            return cls(directory, method, metrics, environment, decisive, *outputs, bool(deterministic))
        except (OSError, KeyError, TypeError, ValueError, AttributeError, pyarrow.ArrowException) as error:
            if isinstance(error, KDError):
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise KDError(f"the run in '{directory.path}' is damaged ({reason}); train it again") from error

    @property
    def seed(self) -> int:
        return self.metrics["seed"]

    @property
    def test_rows(self) -> str:
        """The checksum of the test split."""
        return self.environment["data"]["test"]

    @property
    def teacher(self) -> str | None:
        """The checksum of its teacher, where there is one."""
        return (self.environment["teacher"] or {}).get("checksum")


def figure(metrics: dict[str, Any], *keys: str) -> float | None:
    """Return a figure below these keys; None where one of them is missing.

    >>> figure({"test": {"kl": 0.1}}, "test", "kl"), figure({}, "test", "kl")
    (0.1, None)
    """
    found: Any = metrics
    for key in keys:
        found = (found or {}).get(key)
    return found


def check_figures(metrics: dict[str, Any], environment: dict[str, Any]) -> None:
    """Raise KeyError, TypeError or AttributeError where a figure is missing that the tables read."""
    _ = "".join(metrics[name] for name in ("student", "data", "weights")) + environment["data"]["test"]
    _ = metrics["padding_share"] + metrics["seed"], metrics.get("validation", {}).get("accuracy", 0.0) + 0.0
    _ = metrics["latency"]["threads"] + metrics["test"]["rows"], metrics["test"].get("agreement", 0.0) + 0.0
    _ = metrics.get("speedup", {"ratio": 1.0})["ratio"] + 0.0
    costs = [metrics]
    if environment["teacher"] is not None:
        _ = environment["teacher"]["checksum"] + "", metrics["teacher_cost"]["name"] + ""
        costs.append(metrics["teacher_cost"])
    for cost in costs:
        _ = cost["training_seconds"] is None or cost["training_seconds"] + 0.0
        _ = cost["model_bytes"] / cost["latency"]["p50_ms"]
        _ = cost["parameters"]["total"] + cost["parameters"]["without_embeddings"]


def read_predictions(path: Path, shared: dict[bytes, np.ndarray]) -> dict[str, Split]:
    """Read the splits in a ``predictions.parquet``.

    Raises:
        KDError: no test rows, or logits that are not finite.
    """
    table, found = pyarrow.parquet.read_table(path, use_threads=False, memory_map=False), {}
    for name in ("validation", "test"):
        rows = table.filter(pyarrow.compute.equal(table["split"], name))
        if not len(rows):
            continue
        labels, logits = once(rows["label"].to_numpy(), shared), matrix(rows, "logits", path)
        taught = "teacher_logits" in rows.column_names
        teacher = Split(labels, once(matrix(rows, "teacher_logits", path), shared)) if taught else None
        found[name] = Split(labels, logits, teacher)
    if "test" not in found:
        raise KDError(f"expected test rows in '{path}', found none; train it again")
    return found


def matrix(table: pyarrow.Table, name: str, path: Path) -> np.ndarray:
    """Turn a column of lists into ``[N, C]`` float32; the path is for the error message."""
    column = table[name].combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), -1)
    if wrong := int((~np.isfinite(values)).sum()):
        raise KDError(
            f"expected finite {name} in '{path}', found {wrong} that are not; "
            "the run diverged: train it again with a smaller learning rate"
        )
    return values


def once(values: np.ndarray, shared: dict[bytes, np.ndarray]) -> np.ndarray:
    """Return the earlier array where an equal one was read before."""
    return shared.setdefault(hashlib.sha256(values.tobytes()).digest(), values)


@dataclass
class Found:
    """The runs below some folders.

    Args:
        runs: finished and whole.
        left_out: (place, reason) of each run that failed, is unfinished or is damaged.
    """

    runs: list[Run] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)

    def leave_out(self, directory: RunDirectory, reason: str) -> None:
        """Note a run that cannot be shown, and print the reason on standard error."""
        print(f"kd report: left out: {reason}", file=sys.stderr)
        self.left_out.append((directory.path, reason))


def find_runs(folders: Sequence[Path]) -> Found:
    """Read the finished runs in or below the folders; name the others on standard error.

    Raises:
        KDError: a folder does not exist, or none holds a finished run.
    """
    places: dict[Path, RunDirectory] = {}
    for folder in folders:
        if not folder.is_dir():
            raise KDError(f"expected a folder with runs, found none at '{folder}'; give what kd train printed")
        for status in sorted(folder.glob("**/status.json")):
            places.setdefault(status.resolve(), RunDirectory(status.parent))
    found, states = Found(), Counter[str]()
    shared: dict[bytes, np.ndarray] = {}
    for directory in places.values():
        try:
            state = directory.status()
            if state.get("state") == "done":
                found.runs.append(Run.read(directory, shared))
                continue
        except KDError as error:
            found.leave_out(directory, str(error))
            continue
        states["stopped early by a search" if state.get("state") == "pruned" else "not finished"] += 1
        found.left_out.append((directory.path, unfinished_reason(state)))
    leave_out_other_rows(found)
    if states:
        counts = listed([f"{plural(count, 'run')} {state}" for state, count in sorted(states.items())])
        print(f"kd report: left out: {counts}", file=sys.stderr)
    if not found.runs:
        raise KDError(f"expected finished runs in {', '.join(map(str, folders))}, found none; run kd train first")
    return found


def leave_out_other_rows(found: Found) -> None:
    """Leave out runs whose test labels are not those that most runs of the same checksum have."""
    # `once` made equal labels one array, so that their ids can be compared.
    rows_of = {run: (run.test_rows, id(run.test.labels), run.test.logits.shape) for run in found.runs}
    usual = {rows[0]: rows for rows, _ in reversed(Counter(rows_of.values()).most_common())}
    found.runs = []
    for run, rows in rows_of.items():
        if rows == usual[run.test_rows]:
            found.runs.append(run)
            continue
        found.leave_out(
            run.directory,
            "expected the test labels of the other runs with the same checksum in "
            f"'{run.directory.predictions_file}', found others; train it again",
        )


def unfinished_reason(state: dict[str, Any]) -> str:
    """Say in a sentence why a run is not done."""
    usual = {"failed": "no reason was given", "pruned": "a search stopped it"}
    if (name := state.get("state")) in usual:
        return f"{name}: {state.get('reason') or usual[name]}"
    return "not finished: still running, or interrupted; repeat the same command to resume it"
