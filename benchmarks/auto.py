"""Compare kd auto with the defaults and with the search of conf/experiment/search.yaml in the same time.

    python benchmarks/auto.py --budget 6min --folder /tmp/auto -- data=rotten_tomatoes
    python benchmarks/auto.py --budget 6min --folder /tmp/trec -- data=files data.train=train.csv data.test=test.csv ...

The teacher is fine-tuned before, and none of the three pays for it. All runs of the three are the pool. The regret of
each is the accuracy of the best run of the pool minus that of the run that it chose on validation. To know the best on
test, this script reads the test rows with every run of the pool; no choice uses them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from kd.advice.plan import quantity
from kd.classifier import load
from kd.config import build
from kd.data.batching import labels_of
from kd.run.directory import RunDirectory


def kd(*words: str) -> float:
    """Run a command and return its seconds; a failed job of a search is no error."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "kd", *words], check=False)
    return time.perf_counter() - start


def accuracies(place: Path) -> dict[Path, tuple[float, float]]:
    """Return the accuracy on validation and on test of the finished runs below a folder."""
    found = {}
    for status in sorted(place.glob("**/status.json")):
        run = RunDirectory(status.parent)
        if run.status()["state"] != "done":
            continue
        test = build.splits(OmegaConf.create(run.config())).test
        predicted = load(run.path).logits(test["text"][:]).argmax(axis=1)
        on_validation = run.metrics()["validation"]["accuracy"]
        found[run.path] = (on_validation, float(np.mean(predicted == labels_of(test))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="6min")
    parser.add_argument("--folder", type=Path, required=True, help="of the studies; the same command resumes")
    parser.add_argument("words", nargs="*", help="data and teacher, as for kd train")
    options = parser.parse_args()
    folder, words, seconds = (
        options.folder.absolute(),
        options.words,
        quantity(options.budget, ("time",), "--budget")[1],
    )
    unread, limit = ["measure_test=false"], f"hydra.sweeper.minutes={seconds / 60:g}"
    kd("train", *words, *unread, "student=bag", "method=supervised", f"hydra.run.dir={folder}/teacher")
    search = ["train", "-m", *words, "experiment=search", "hydra.sweeper.n_trials=1000", limit, *unread]
    took = {
        "kd auto": kd("auto", *words, "--budget", options.budget, "--study", f"{folder}/auto"),
        "defaults": kd("train", *words, *unread, f"hydra.run.dir={folder}/defaults"),
        "Optuna": kd(*search, "hydra.launcher.report=false", f"hydra.sweep.dir={folder}/search"),
    }
    places = {"kd auto": folder / "auto", "defaults": folder / "defaults", "Optuna": folder / "search"}
    found = {name: accuracies(place) for name, place in places.items()}
    pool = [each for runs in found.values() for each in runs.values()]
    best = [max(values) for values in zip(*pool, strict=True)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("", "runs done", "minutes", "chosen", "validation", "test", "regret", "on test"):
        table.add_column(name, justify="left" if name in ("", "chosen") else "right", overflow="fold")
    for name, runs in found.items():
        if not runs:
            table.add_row(name, "0", f"{took[name] / 60:.1f}", "none")
            continue
        chosen = max(runs, key=lambda run: runs[run][0])
        figures = [100 * value for value in (*runs[chosen], best[0] - runs[chosen][0], best[1] - runs[chosen][1])]
        table.add_row(name, str(len(runs)), f"{took[name] / 60:.1f}", chosen.name, *(f"{one:.1f}" for one in figures))
    Console().print(table)
    print(f"the best of the pool of {len(pool)} runs: {100 * best[0]:.1f} on validation, {100 * best[1]:.1f} on test")


if __name__ == "__main__":
    main()
