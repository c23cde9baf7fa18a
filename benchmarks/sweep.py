"""Measure what a run costs in addition to its training: as its own `kd train` process, and as a job of a sweep.

    python benchmarks/sweep.py [--jobs 8] [--rows 2000] [--student dan] [--teacher minilm]

A first run fine-tunes the teacher and labels the rows, so that every other run finds the teacher's outputs on disk.
Then the same runs, one seed each, are started as processes one after the other, and as one sweep with one slot. The
cost beyond training (imports, composing, reading rows, evaluation, latency, files) is a run's wall time minus the time
from its first to its last step. The table has medians over the runs, and the whole time of each side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2000, help="rows of each split's file")
    parser.add_argument("--student", default="dan")
    parser.add_argument("--teacher", default="minilm")
    parser.add_argument("--method", default="distillation")
    options = parser.parse_args()
    common = [
        *(f"student={options.student}", f"teacher={options.teacher}", f"method={options.method}", "teacher.epochs=1"),
        *(f"data.limit={options.rows}", "trainer=cpu", "trainer.max_epochs=2", "callbacks=[checkpoint]"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        common.append(f"outputs={folder}/outputs")
        kd("train", *common, "seed=1000", f"hydra.run.dir={folder}/first")
        alone = []
        start = time.perf_counter()
        for seed in range(options.jobs):
            place, begun = Path(folder) / f"alone-{seed}", time.perf_counter()
            kd("train", *common, f"seed={seed}", f"hydra.run.dir={place}")
            alone.append((time.perf_counter() - begun, training(place)))
        alone_whole = time.perf_counter() - start
        seeds = ",".join(map(str, range(options.jobs)))
        place, start = Path(folder) / "sweep", time.perf_counter()
        kd("train", "-m", *common, f"seed={seeds}", f"hydra.sweep.dir={place}", "hydra.launcher.slots=1")
        swept_whole = time.perf_counter() - start
        jobs = json.loads((place / "sweep.json").read_text())["jobs"]
        swept = [(job["seconds"], training(place / job["directory"])) for job in jobs]

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "run s", "training s", "beyond training s", f"all {options.jobs} s"):
        table.add_column(name, justify="right" if name else "left")
    beyond = {}
    for name, runs, whole in (("processes", alone, alone_whole), ("sweep", swept, swept_whole)):
        walls, trainings = zip(*runs, strict=True)
        beyond[name] = statistics.median(wall - trained for wall, trained in runs)
        medians = (statistics.median(walls), statistics.median(trainings), beyond[name], whole)
        table.add_row(name, *(f"{value:.2f}" for value in medians))
    ratio = beyond["processes"] / beyond["sweep"]
    table.add_row("ratio", "", "", f"{ratio:.1f}", f"{alone_whole / swept_whole:.1f}")
    Console().print(table)


def kd(*arguments: str) -> None:
    """Run a command; show its output only if it fails."""
    done = subprocess.run([sys.executable, "-m", "kd", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def training(run: Path) -> float:
    """Return the seconds from a run's first to its last step."""
    return json.loads((run / "metrics.json").read_text())["training_seconds"]


if __name__ == "__main__":
    main()
