"""``kd reproduce RUN``: train a finished run again from its configuration, and compare both runs bit for bit."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from kd.config import targets
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.storage.checksum import file_sha256

SPLITS = ("validation", "test")


def main(arguments: list[str]) -> int:
    """Train the run again and print what is the same; the exit code is 1 if results differ."""
    parser = argparse.ArgumentParser(prog="kd reproduce", description=__doc__.partition(": ")[2])
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--into", type=Path, help="new directory (default: <outputs>/reproduced/<name of the run>)")
    parser.add_argument(
        "--from-scratch", action="store_true", help="also fine-tune the teacher and label again, below --into"
    )
    parser.add_argument("--outputs", type=Path, help="folder of teachers and their outputs (default: the run's)")
    parser.add_argument("--modules", nargs="+", default=[], help="your own modules that the run may use")
    options = parser.parse_args(arguments)
    targets.trust(options.modules)  # but not the modules that the run lists, which may come from a stranger
    original = RunDirectory.finished(options.run)
    environment = original.environment()
    config = original.config()
    config["outputs"] = str(options.outputs or own_outputs(options.run, config["outputs"]))
    place = options.into or Path(config["outputs"]) / "reproduced" / options.run.resolve().name
    require_apart(options.run, place)
    if options.from_scratch:
        config["outputs"] = str(place / "outputs")
    # The same number of threads as then, because the last bits of sums depend on it.
    config |= {"rerun": True, "threads": environment.get("threads", config["threads"])}
    if train(config, place) is None:  # this is a rank other than 0
        return 0
    repeated = RunDirectory.finished(place)
    return show(comparisons(original, repeated), differences(environment, repeated.environment()), Console())


def own_outputs(run: Path, outputs: str) -> Path:
    """Return the folder in which the run kept its teachers.

    Raises:
        KDError: it is neither below the current folder, nor a parent of the run, nor holds teachers already. A run that
            a stranger made must not choose where files are written.
    """
    place = Path(outputs)
    here = Path.cwd() in place.resolve().parents or place.resolve() in run.resolve().parents
    if not here and not any((place / name).is_dir() for name in ("teachers", "teacher_cache")):
        raise KDError(
            f"the run keeps its teachers in '{outputs}', which is neither in this folder nor around the run and holds "
            "no teachers; give --outputs DIR"
        )
    return place


def require_apart(run: Path, place: Path) -> None:
    """Refuse to train in the folder of the run itself.

    Raises:
        KDError: the folders are the same, or one is inside the other.
    """
    one, other = run.resolve(), place.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise KDError(f"expected --into apart from the run '{run}', got '{place}'; choose another folder")


def train(config: dict[str, Any], place: Path) -> float | list[float] | None:
    """Train a run with this configuration; return its figures, or None in a rank other than 0."""
    from omegaconf import OmegaConf

    from kd.training import single_run

    place.mkdir(parents=True, exist_ok=True)
    return single_run.train(OmegaConf.create(config), place)


@dataclass(frozen=True)
class Comparison:
    """One line of the table: something that both runs have.

    Args:
        what: its name.
        original: its value in the original run, as printed.
        repeated: its value in the repeated run, as printed.
        same: whether all bits are equal.
        verdict: the difference in words.
    """

    what: str
    original: str
    repeated: str
    same: bool
    verdict: str


def comparisons(original: RunDirectory, repeated: RunDirectory) -> Iterator[Comparison]:
    """Compare weights, rows, logits and accuracies of both runs."""
    sums = [_checksum(run.model / "model.safetensors") for run in (original, repeated)]
    same = sums[0] == sums[1]
    yield Comparison("weights, sha256", sums[0][:12], sums[1][:12], same, "same" if same else "other weights")
    figures = [run.metrics() for run in (original, repeated)]
    tables = [pyarrow.parquet.read_table(run.predictions_file) for run in (original, repeated)]
    for split in SPLITS:
        rows = [table.filter(pyarrow.compute.equal(table["split"], split)) for table in tables]
        logits = [np.array(table["logits"].to_pylist(), dtype=np.float32) for table in rows]
        labels = [np.array(table["label"].to_pylist()) for table in rows]
        counts = [f"{len(values)} rows" for values in logits]
        if logits[0].shape != logits[1].shape or not np.array_equal(*labels):
            yield Comparison(f"{split} rows", *counts, False, "other rows: the data changed")
            continue
        same = np.array_equal(*logits, equal_nan=True)
        apart = np.abs(logits[0] - logits[1]).max()
        changed = int((logits[0].argmax(axis=1) != logits[1].argmax(axis=1)).sum())
        verdict = "same" if same else f"off by {apart:.2g}, {changed} labels changed"
        yield Comparison(f"{split} logits", *counts, same, verdict)
        accuracies = [found[split]["accuracy"] for found in figures]
        points = 100 * (accuracies[1] - accuracies[0])
        verdict = "same" if not points else f"{points:+.2f} points"
        yield Comparison(f"{split} accuracy", *(f"{value:.4f}" for value in accuracies), not points, verdict)


def differences(original: dict[str, Any], repeated: dict[str, Any]) -> list[str]:
    """Return the differences of both environments, one line each; they may explain different results."""
    recorded = [
        {
            **{f"package {name}": version for name, version in (found.get("packages") or {}).items()},
            **{f"{name} rows": (found.get("data") or {}).get(name, "none")[:12] for name in ("train", *SPLITS)},
            "python": found.get("python"),
            "kd's commit": (found.get("git") or {}).get("commit", "none")[:12],
            "uncommitted changes": (found.get("git") or {}).get("uncommitted_changes", False),
            "processor": (found.get("machine") or {}).get("processor"),
            "threads": found.get("threads"),
            "teacher": ((found.get("teacher") or {}).get("checksum") or "none")[:12],
        }
        for found in (original, repeated)
    ]
    names = dict.fromkeys([*recorded[0], *recorded[1]])  # also those that only one environment has
    changed = [(name, *(values.get(name) for values in recorded)) for name in names]
    return [f"{name}: {before} -> {now}" for name, before, now in changed if before != now]


def show(found: Iterator[Comparison], changed: list[str], console: Console) -> int:
    """Print the comparison and return the exit code."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("", "the run", "reproduced", ""):
        table.add_column(name, overflow="fold")
    everything = list(found)
    for line in everything:
        table.add_row(line.what, line.original, line.repeated, line.verdict)
    console.print(table)
    for line in changed:
        console.print(f"changed since: {line}", markup=False, highlight=False)
    if all(line.same for line in everything):
        console.print("reproduced to the last bit")
        return 0
    why = "see what changed since" if changed else "no recorded setting has changed: set trainer.deterministic=true"
    console.print(f"not reproduced to the last bit; {why}", markup=False, highlight=False)
    return 1


def _checksum(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise KDError(
            f"expected the weights of a run in '{path}', found none ({error.strerror}); train it again"
        ) from error
