"""Read finished runs from disk, without torch."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kd.errors import KDError
from kd.measure.row_values import row_values
from kd.options.sections import Metric
from kd.report.settings import of_files, settings
from kd.report.words import listed, plural
from kd.run import predictions
from kd.run.directory import RunDirectory
from kd.run.predictions import Split

FIGURES = (
    *("student", "embeddings", "data", "seed", "test", "parameters", "model_bytes", "latency"),
    *("padding_share", "training_seconds", "weights"),
)
"""Keys that ``metrics.json`` must have."""

READ = ("config.yaml", "environment.json", "metrics.csv", "metrics.json", "predictions.parquet")
"""Products of a run that a report reads."""


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
        metric: what the report compares it by.
        parts: the runs of its folds, where it was pooled (`kd.report.folds`).
    """

    directory: RunDirectory
    method: str
    metrics: dict[str, Any]
    environment: dict[str, Any]
    settings: dict[str, Any]
    test: Split
    validation: Split | None
    deterministic: bool
    metric: Metric = "accuracy"
    parts: tuple[Run, ...] = ()

    @classmethod
    def read(cls, directory: RunDirectory, shared: dict[bytes, np.ndarray]) -> Run:
        """Read a run; equal arrays of several runs (labels, logits of the teacher) are kept once, in ``shared``.

        Raises:
            KDError: a file that is missing or damaged.
        """
        metrics, environment = directory.metrics(), directory.environment()
        require_figures(directory.path, metrics, environment)
        config = directory.config()
        splits = predictions.of_run(directory, metrics, environment, shared)
        decisive = settings(config) | of_files(config, environment, metrics)
        deterministic = bool((config.get("trainer") or {}).get("deterministic"))
        outputs = splits["test"], splits.get("validation")
        metric = config.get("metric", "accuracy")
        method = config["choices"]["method"]
        return cls(directory, method, metrics, environment, decisive, *outputs, deterministic, metric)

    @property
    def trainings(self) -> tuple[Run, ...]:
        """The trainings that it stands for: its folds, or itself."""
        return self.parts or (self,)

    @property
    def fold(self) -> int | None:
        """The fold that is its test split; None without folds, and for pooled folds."""
        return self.settings.get("data.fold")

    @property
    def seed(self) -> int:
        return self.metrics["seed"]

    @cached_property
    def values(self) -> np.ndarray:
        """``[N]`` for the test rows, whose mean is the metric (`kd.measure.row_values`)."""
        return row_values(self.metric, self.test.logits, self.test.labels)

    @cached_property
    def teacher_score(self) -> float | None:
        """The metric of its teacher on the test rows."""
        teacher = self.test.teacher
        return None if teacher is None else float(row_values(self.metric, teacher.logits, teacher.labels).mean())

    @property
    def validation_score(self) -> float | None:
        """The metric on the validation rows; None where a run of an early kd has no such figure."""
        return figure(self.metrics, "validation", self.metric)

    @property
    def test_rows(self) -> str:
        """The checksum of the test split."""
        return self.environment["data"]["test"]

    @property
    def transfer_texts(self) -> int:
        """The number of training rows without a gold label: those of a split in memory, and those of shards."""
        found = (self._data("counts", "splits", "train", "unlabelled"), self._data("transfer", "rows"))
        return sum(rows for rows in found if type(rows) is int)

    @property
    def labelled_rows(self) -> str:
        """What tells the labelled rows of two runs apart: the validation rows, and the number of each label.

        For a run of an early kd, which did not count the labels: all training rows.
        """
        labels = self._data("counts", "splits", "train", "labels")
        counted = sorted(labels.items()) if isinstance(labels, dict) and labels else self._data("train")
        return repr([self._data("validation"), counted])

    def _data(self, *keys: str) -> Any:
        """Return what ``environment.json`` says about the rows below these keys; None where it does not."""
        found: Any = self.environment["data"]
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

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


def require_figures(place: Path, metrics: dict[str, Any], environment: dict[str, Any]) -> None:
    """Refuse a run without a figure that the tables read. `kd.storage.records` has checked the types.

    Raises:
        KDError: naming the figures that it lacks.
    """
    missing = [key for key in FIGURES if metrics.get(key) is None and key != "training_seconds"]
    if (metrics.get("test") or {}).get("rows") is None:
        missing.append("test.rows")
    if (environment.get("data") or {}).get("test") is None:
        missing.append("the checksum of the test rows")
    if environment.get("teacher") is not None and metrics.get("teacher_cost") is None:
        missing.append("teacher_cost")
    if missing:
        raise KDError(
            f"the run in '{place}' lacks the figures {', '.join(missing)}; repeat its kd train with measure_test=true"
        )


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
    found, states, unverified = Found(), Counter[str](), 0
    shared: dict[bytes, np.ndarray] = {}
    for directory in places.values():
        try:
            state = directory.status()
            if state["state"] == "done":
                unverified += not directory.require_whole(READ)
                found.runs.append(Run.read(directory, shared))
                continue
        except KDError as error:
            found.leave_out(directory, str(error))
            continue
        except Exception as error:  # one run must not end the report, whatever a stranger has put into its files
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            found.leave_out(directory, f"the run in '{directory.path}' is damaged ({reason}); train it again")
            continue
        states["stopped early by a search" if state.get("state") == "pruned" else "not finished"] += 1
        found.left_out.append((directory.path, unfinished_reason(state)))
    leave_out_other_rows(found)
    if unverified:
        print(
            f"kd report: {plural(unverified, 'run')} of an early kd without checksums: damage to their files cannot be "
            "noticed",
            file=sys.stderr,
        )
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
