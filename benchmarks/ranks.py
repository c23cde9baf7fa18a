"""Compare two ranks with one thread each and one process with two threads: the same run of `kd train` on a CPU.

    python benchmarks/ranks.py [--rows 4096] [--epochs 2] [--repeats 3] [--students bilstm textcnn dan] [--trainer ddp]

Supervised training on the Rotten Tomatoes sentences with a global batch of 64 on both sides. Rows a second are measured
from the first to the last step, validation included. "whole" is the command's wall time, in which two ranks also read,
tokenise and import twice. The two sides alternate, and the table has medians.
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

SIDES = {
    "one process, two threads": ["trainer=cpu", "threads=2", "data.batch_size=64"],
    "two ranks, one thread each": ["trainer.devices=2", "threads=1", "data.batch_size=32"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096, help="limit for each split's file")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--students", nargs="+", default=["bilstm", "textcnn", "dan"])
    parser.add_argument("--trainer", choices=["ddp", "fsdp"], default="ddp", help="strategy of the two ranks")
    options = parser.parse_args()
    table = Table(box=None, pad_edge=False)
    table.add_column("student")
    for name in ("", "rows/s", "whole s"):
        table.add_column(name, justify="right" if name else "left")
    with tempfile.TemporaryDirectory() as folder:
        for student in options.students:
            found = {name: [] for name in SIDES}
            for repeat in range(options.repeats):
                for place, (name, side) in enumerate(SIDES.items()):
                    run = Path(folder) / f"{student}-{repeat}-{place}"
                    chosen = side if place == 0 else [f"trainer={options.trainer}", "trainer.accelerator=cpu", *side]
                    found[name].append(measured(run, student, options.rows, options.epochs, chosen))
            for name, figures in found.items():
                rate, whole = (statistics.median(column) for column in zip(*figures, strict=True))
                table.add_row(student, name, f"{rate:.0f}", f"{whole:.1f}")
    Console().print(table)


def measured(run: Path, student: str, rows: int, epochs: int, side: list[str]) -> tuple[float, float]:
    """Return the training rows a second, and the seconds of the whole command."""
    common = [
        *("method=supervised", "teacher=none", "tokenizer=words", "embeddings=random", f"student={student}"),
        *(f"data.limit={rows}", f"trainer.max_epochs={epochs}", "callbacks=[checkpoint]"),
        *(f"outputs={run.parent}/outputs", f"hydra.run.dir={run}"),
    ]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "kd", "train", *common, *side], capture_output=True, text=True)
    whole = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    trained = json.loads((run / "environment.json").read_text())["data"]["counts"]["splits"]["train"]["rows"]
    return trained * epochs / json.loads((run / "metrics.json").read_text())["training_seconds"], whole


if __name__ == "__main__":
    main()
