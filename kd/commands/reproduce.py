"""``kd reproduce RUN``: train a finished run again from its own directory, and compare the two bit for bit.

Where kd computes with another kernel today, the bits must differ, and the accuracies are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from kd.config import targets
from kd.errors import KDError
from kd.run import predictions
from kd.run.directory import RunDirectory
from kd.run.identity import LATER
from kd.run.predictions import Split
from kd.storage.checksum import file_sha256
from kd.storage.paths import refuse_link

DESCRIPTION = "Train a finished run again from its own directory, and compare the two bit for bit."
SPLITS = ("validation", "test")
SAME = "same"
NO_ROWS = Split(np.empty(0, np.int64), np.empty((0, 2), np.float32))
TOLERANCE = 0.02
"""Largest difference of two accuracies of one training with two versions of a kernel; one row is always allowed.

Other last bits grow in the training: a BiLSTM differed by half a point after two epochs.
"""


def main(arguments: list[str]) -> int:
    """Train the run again and print the comparison; return 1 if a result differs."""
    parser = argparse.ArgumentParser(prog="kd reproduce", description=DESCRIPTION)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--into", type=Path, help="where to train; by default <outputs>/reproduced/<name of the run>")
    parser.add_argument(
        "--from-scratch", action="store_true", help="also fine-tune the teacher and label the rows again, below --into"
    )
    parser.add_argument("--outputs", type=Path, help="folder of the teachers and their outputs (default: as the run)")
    parser.add_argument("--modules", nargs="+", default=[], help="your own modules that the run may name")
    options = parser.parse_args(arguments)
    targets.trust(options.modules)  # not the modules that the run lists, because a stranger may have made it
    original = RunDirectory.finished(options.run)
    environment, config = original.environment(), original.config()
    config = {key: default for key, default in LATER.items() if "." not in key} | config
    config["outputs"] = str(options.outputs or own_outputs(options.run, config["outputs"]))
    place = options.into or Path(config["outputs"]) / "reproduced" / options.run.resolve().name
    require_apart(options.run, place)
    if original.metrics_file.is_file():
        of_run(original)  # refused now, not after the training
    if not (options.into or options.outputs):  # then the run, which a stranger may have made, decides where it is
        own = place.relative_to(config["outputs"])
        for folder in ("teachers", "teacher_cache", "transfer_sets", own):
            refuse_link(Path(config["outputs"]), Path(config["outputs"]) / folder)
    if options.from_scratch:
        config["outputs"] = str(place / "outputs")
    # The number of threads as in the run, whatever the default is here: it changes the last bits of sums.
    config |= {"rerun": True, "threads": environment.get("threads", config["threads"])}
    from kd.training import single_run  # not at the top: it imports torch

    place.mkdir(parents=True, exist_ok=True)
    try:
        if single_run.train(OmegaConf.create(config), place) is None:  # in a rank other than 0
            return 0
    except OmegaConfBaseException as error:  # the run's configuration lacks a key
        reason = str(error).splitlines()[0]
        raise KDError(f"expected the whole configuration of a run, found one without a part: {reason}") from error
    repeated = RunDirectory.finished(place)
    again = repeated.environment()
    found, kernels = comparisons(original, repeated), changed_kernels(environment, again)
    return show(found, differences(environment, again), Console(), kernels)


def own_outputs(run: Path, outputs: str) -> Path:
    """Return the folder of the run's teachers. It must be in this folder or around the run, or hold teachers already.

    Raises:
        KDError: it is elsewhere; a run that a stranger made must not decide where this machine's disk is written.
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
    """Refuse to train in the folder of the run, in a folder inside it, or in one around it."""
    one, other = run.resolve(), place.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise KDError(f"expected --into apart from the run '{run}', got '{place}'; give a folder of its own")


class Comparison(NamedTuple):
    """A result of both runs, as it is printed. The verdict is `SAME` if the two are equal to the last bit.

    ``close`` says whether an accuracy is within the `TOLERANCE`; a result that is not compared so is close.
    """

    name: str
    original: str
    repeated: str
    verdict: str
    close: bool = True


def comparisons(original: RunDirectory, repeated: RunDirectory) -> Iterator[Comparison]:
    """Compare the weights, the rows, the logits and the accuracies of the two."""
    one, two = (_checksum(run.model / "model.safetensors") for run in (original, repeated))
    yield Comparison("weights, sha256", one[:12], two[:12], SAME if one == two else "other weights")
    figures, again = original.metrics(), repeated.metrics()
    found = of_run(original), of_run(repeated)
    for split in SPLITS:
        rows = [part.get(split, NO_ROWS) for part in found]
        labels, labels_again = (part.labels for part in rows)
        logits, logits_again = (part.logits for part in rows)
        counts = f"{len(logits)} rows", f"{len(logits_again)} rows"
        if logits.shape != logits_again.shape or not np.array_equal(labels, labels_again):
            yield Comparison(f"{split} rows", *counts, "other rows: the data changed", close=False)
            continue
        largest = np.abs(logits - logits_again).max()
        changed = (logits.argmax(axis=1) != logits_again.argmax(axis=1)).sum()
        equal = np.array_equal(logits, logits_again, equal_nan=True)
        yield Comparison(
            f"{split} logits", *counts, SAME if equal else f"off by {largest:.2g}, {changed} labels changed"
        )
        before, now = figures[split]["accuracy"], again[split]["accuracy"]
        points = 100 * (now - before)
        verdict = f"{points:+.2f} points" if points else SAME
        close = is_close(before, now, len(logits))
        yield Comparison(f"{split} accuracy", f"{before:.4f}", f"{now:.4f}", verdict, close)


def is_close(one: float, other: float, rows: int) -> bool:
    """Return whether two accuracies on so many rows differ by at most the `TOLERANCE`, or by one row."""
    return abs(one - other) <= max(TOLERANCE, 1 / rows) + 1e-9  # 0.72 - 0.7 is a little more than 0.02


def changed_kernels(original: dict[str, Any], repeated: dict[str, Any]) -> list[str]:
    """Return the numeric kernels of kd that have another version in the repetition than in the run."""
    before, now = (found.get("kernels") or {} for found in (original, repeated))
    return [name for name in sorted({*before, *now}) if before.get(name, 1) != now.get(name, 1)]


def of_run(run: RunDirectory) -> dict[str, Split]:
    """Read the predictions of a run, by split."""
    return predictions.of_run(run, run.metrics(), run.environment(), {})


def differences(original: dict[str, Any], repeated: dict[str, Any]) -> list[str]:
    """Return what differs between the two environments, a line for each: it may explain other bits."""
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
    names = dict.fromkeys([*facts[0], *facts[1]])  # also what only one of the two has
    changed = [(name, *(part.get(name) for part in facts)) for name in names]
    return [f"{name}: {before} -> {now}" for name, before, now in changed if before != now]


def show(found: Iterable[Comparison], changed: list[str], console: Console, kernels: Sequence[str] = ()) -> int:
    """Print the comparison; return the exit code.

    Args:
        found: the results of both runs.
        changed: what differs between their environments, a line for each.
        console: where it is printed.
        kernels: those that changed. If there are any, it is enough that the accuracies are close.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("", "the run", "reproduced", ""):
        table.add_column(title, overflow="fold")
    verdicts, close = [], True
    for comparison in found:
        table.add_row(*comparison[:4])
        verdicts.append(comparison.verdict)
        close &= comparison.close
    console.print(table)
    for line in changed:
        console.print(f"changed since: {line}", markup=False, highlight=False)
    if set(verdicts) == {SAME}:
        console.print("reproduced to the last bit")
        return 0
    if kernels:
        verdict = "reproduced" if close else "not reproduced"
        console.print(
            f"{verdict}: a kernel of kd changed since ({', '.join(kernels)}), so the bits differ; accuracies are held "
            f"to {100 * TOLERANCE:g} points, or to one row",
            markup=False,
            highlight=False,
        )
        return 0 if close else 1
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
