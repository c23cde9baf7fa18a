"""Read finished runs from disk, without torch."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from kd.errors import KDError
from kd.report.origin import command_of
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
    """The outputs of a run on the rows of a split.

    Args:
        labels: ``[N]``, gold.
        logits: ``[N, C]`` of the student.
        teacher_logits: ``[N, C]`` of the teacher, where there is one.
    """

    labels: np.ndarray
    logits: np.ndarray
    teacher_logits: np.ndarray | None

    @cached_property
    def correct(self) -> np.ndarray:
        """``[N]`` bool: the student's label is the gold one."""
        return self.logits.argmax(axis=1) == self.labels

    @cached_property
    def teacher_correct(self) -> np.ndarray:
        """``[N]`` bool: the teacher's label is the gold one."""
        return self.teacher_logits.argmax(axis=1) == self.labels


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
            config = directory.config()
            splits = read_predictions(directory.predictions_file, shared)
            check_figures(metrics, environment)
            return cls(
                directory,
                "" + config["choices"]["method"],
                metrics,
                environment,
                settings(config) | of_files(config, environment, metrics),
                splits["test"],
                splits.get("validation"),
                bool(config.get("trainer", {}).get("deterministic", False)),
            )
        except (OSError, KeyError, TypeError, ValueError, AttributeError, pyarrow.ArrowException) as error:
            if isinstance(error, KDError):
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise KDError(f"the run in '{directory.path}' is damaged ({reason}); train it again") from error

    @property
    def supervised(self) -> bool:
        return self.method == "supervised"

    @property
    def seed(self) -> int:
        return self.metrics["seed"]

    @property
    def test_rows(self) -> str:
        """The checksum of the test split."""
        return self.environment["data"]["test"]

    @property
    def command(self) -> list[str] | None:
        """The command that made the run; see `kd.report.origin`."""
        return command_of(self.directory, self.environment)


def check_figures(metrics: dict[str, Any], environment: dict[str, Any]) -> None:
    """Raise KeyError, TypeError or AttributeError where a figure is missing that the tables read."""
    _ = "".join(metrics[name] for name in ("student", "data", "weights")) + environment["data"]["test"]
    _ = metrics["padding_share"] + metrics["seed"], metrics.get("validation", {}).get("accuracy", 0.0) + 0.0
    _ = metrics["latency"]["threads"] + metrics["test"]["rows"], metrics["test"].get("agreement", 0.0) + 0.0
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
    table = pyarrow.parquet.read_table(path, use_threads=False, memory_map=False)
    names = np.asarray(table["split"].to_pylist())
    columns = {"label": table["label"].to_numpy(), "logits": matrix(table["logits"]), "teacher_logits": None}
    if "teacher_logits" in table.column_names:
        columns["teacher_logits"] = matrix(table["teacher_logits"])
    found = {}
    for name in ("validation", "test"):
        chosen = names == name
        if not chosen.any():
            continue
        parts = {key: None if values is None else values[chosen] for key, values in columns.items()}
        for key in ("logits", "teacher_logits"):
            if parts[key] is not None and (wrong := int((~np.isfinite(parts[key])).sum())):
                raise KDError(
                    f"expected finite {key} in '{path}', found {wrong} that are not; "
                    "the run diverged: train it again with a smaller learning rate"
                )
        kept = (once(parts["label"], shared), parts["logits"], once(parts["teacher_logits"], shared))
        found[name] = Split(*kept)
    if "test" not in found:
        raise KDError(f"expected test rows in '{path}', found none; train it again")
    return found


def matrix(column: pyarrow.ChunkedArray) -> np.ndarray:
    """Turn a column of lists into ``[N, C]`` float32."""
    values = column.combine_chunks()
    return values.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(values), -1)


def once(values: np.ndarray | None, shared: dict[bytes, np.ndarray]) -> np.ndarray | None:
    """Return the earlier array where an equal one was read before."""
    if values is None:
        return None
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


def find_runs(folders: Iterable[Path]) -> Found:
    """Read the finished runs in or below the folders; name the others on standard error.

    Raises:
        KDError: a folder does not exist, or none holds a finished run.
    """
    found, states, shared, seen = Found(), Counter(), {}, set()
    folders = list(folders)
    for folder in folders:
        if not folder.is_dir():
            raise KDError(f"expected a folder with runs, found none at '{folder}'; give what kd train printed")
        for status in sorted(folder.glob("**/status.json")):
            directory = RunDirectory(status.parent)
            if (place := status.resolve()) in seen:
                continue
            seen.add(place)
            try:
                state = directory.status()
                if state.get("state") != "done":
                    states["stopped early by a search" if state.get("state") == "pruned" else "not finished"] += 1
                    found.left_out.append((directory.path, unfinished_reason(state)))
                    continue
                found.runs.append(Run.read(directory, shared))
            except KDError as error:
                print(f"kd report: left out: {error}", file=sys.stderr)
                found.left_out.append((directory.path, str(error)))
    found.runs = with_equal_rows(found)
    if states:
        counts = listed([f"{plural(count, 'run')} {state}" for state, count in sorted(states.items())])
        print(f"kd report: left out: {counts}", file=sys.stderr)
    if not found.runs:
        raise KDError(f"expected finished runs in {', '.join(map(str, folders))}, found none; run kd train first")
    return found


def with_equal_rows(found: Found) -> list[Run]:
    """Keep the runs with the test labels that most runs of the same checksum have; leave out the others."""
    shapes: dict[str, Counter] = defaultdict(Counter)
    # `once` made equal labels one array, so that their ids can be compared.
    shape_of = [(run, (id(run.test.labels), run.test.logits.shape)) for run in found.runs]
    for run, shape in shape_of:
        shapes[run.test_rows][shape] += 1
    kept = []
    for run, shape in shape_of:
        if shape == shapes[run.test_rows].most_common(1)[0][0]:
            kept.append(run)
            continue
        reason = (
            f"expected the test labels of the other runs with the same checksum in '{run.directory.predictions_file}', "
            "found others; train it again"
        )
        print(f"kd report: left out: {reason}", file=sys.stderr)
        found.left_out.append((run.directory.path, reason))
    return kept


def unfinished_reason(state: dict[str, Any]) -> str:
    """Say in a sentence why a run is not done."""
    if state.get("state") == "failed":
        return f"failed: {state.get('reason') or 'no reason was given'}"
    if state.get("state") == "pruned":
        return f"pruned: {state.get('reason') or 'a search stopped it'}"
    return "not finished: still running, or interrupted; repeat the same command to resume it"
