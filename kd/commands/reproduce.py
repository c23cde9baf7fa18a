"""``kd reproduce RUN``: train a finished run again from its own directory, and compare the two bit for bit."""

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
    """Train the run again and print what is the same; exit code 1 where something that counts is not."""
    parser = argparse.ArgumentParser(prog="kd reproduce", description=__doc__.partition(": ")[2])
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--into", type=Path, help="where to train; by default <outputs>/reproduced/<name of the run>")
    parser.add_argument(
        "--from-scratch", action="store_true", help="fine-tune the teacher and label anew too, below --into"
    )
    parser.add_argument("--outputs", type=Path, help="where teachers and their answers are kept (default: as the run)")
    parser.add_argument("--modules", nargs="+", default=[], help="your own modules that the run may name")
    options = parser.parse_args(arguments)
    targets.trust(options.modules)  # not those that the run lists: it may be a stranger's
    original = RunDirectory.finished(options.run)
    environment = original.environment()
    config = original.config()
    config["outputs"] = str(options.outputs or own_outputs(options.run, config["outputs"]))
    place = options.into or Path(config["outputs"]) / "reproduced" / options.run.resolve().name
    require_apart(options.run, place)
    if options.from_scratch:
        config["outputs"] = str(place / "outputs")
    # As it was, whatever the default is here: sums depend on the number of threads in their last bits.
    config |= {"rerun": True, "threads": environment.get("threads", config["threads"])}
    if train(config, place) is None:  # a rank that only helped
        return 0
    repeated = RunDirectory.finished(place)
    return show(comparisons(original, repeated), differences(environment, repeated.environment()), Console())


def own_outputs(run: Path, outputs: str) -> Path:
    """Where the run kept its teachers, if that is here, around the run, or a folder that holds teachers already.

    Raises:
        KDError: elsewhere; a run that a stranger made shall not say where this machine's disk is written.
    """
    place = Path(outputs)
    here = Path.cwd() in place.resolve().parents or place.resolve() in run.resolve().parents
    if not here and not any((place / name).is_dir() for name in ("teachers", "teacher_cache")):
        raise KDError(
            f"the run keeps its teachers in '{outputs}', which is neither in this folder nor around the run and holds "
            "none; give --outputs DIR"
        )
    return place


def require_apart(run: Path, place: Path) -> None:
    """Refuse to train where the run itself stands.

    Raises:
        KDError: the two folders are one, or one lies in the other.
    """
    one, other = run.resolve(), place.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise KDError(f"expected --into apart from the run '{run}', got '{place}'; give a folder of its own")


def train(config: dict[str, Any], place: Path) -> float | list[float] | None:
    """One run of this configuration, in a folder of its own; None in a rank other than the first."""
    from omegaconf import OmegaConf

    from kd.training import single_run

    place.mkdir(parents=True, exist_ok=True)
    return single_run.train(OmegaConf.create(config), place)


@dataclass(frozen=True)
class Comparison:
    """One thing of both runs.

    Args:
        what: its name.
        original, repeated: as printed.
        same: whether they are equal to the last bit.
        verdict: in words.
    """

    what: str
    original: str
    repeated: str
    same: bool
    verdict: str


def comparisons(original: RunDirectory, repeated: RunDirectory) -> Iterator[Comparison]:
    """Weights, rows, logits and accuracies of the two."""
    sums = [_checksum(run.model / "model.safetensors") for run in (original, repeated)]
    same = sums[0] == sums[1]
    yield Comparison("weights, sha256", sums[0][:12], sums[1][:12], same, "same" if same else "other weights")
    figures = [run.metrics() for run in (original, repeated)]
    tables = [pyarrow.parquet.read_table(run.predictions_file) for run in (original, repeated)]
    for split in SPLITS:
        rows = [table.filter(pyarrow.compute.equal(table["split"], split)) for table in tables]
        logits = [np.array(part["logits"].to_pylist(), dtype=np.float32) for part in rows]
        labels = [np.array(part["label"].to_pylist()) for part in rows]
        counts = [f"{len(part)} rows" for part in logits]
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
    """What of the two environments is not the same, a line each: where other bits may come from."""
    facts = [
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
    names = dict.fromkeys([*facts[0], *facts[1]])  # also what only one of the two tells
    changed = [(name, *(part.get(name) for part in facts)) for name in names]
    return [f"{name}: {before} -> {now}" for name, before, now in changed if before != now]


def show(found: Iterator[Comparison], changed: list[str], console: Console) -> int:
    """Print the comparison; returns the exit code."""
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
    why = "see what changed since" if changed else "nothing that is recorded changed: set trainer.deterministic=true"
    console.print(f"not reproduced to the last bit; {why}", markup=False, highlight=False)
    return 1


def _checksum(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise KDError(
            f"expected the weights of a run in '{path}', found none ({error.strerror}); train it again"
        ) from error
