"""Show that `kd.measure.cost.speedup` does not depend on the load of the machine, and a ratio of medians does.

    python benchmarks/turns.py [--students dan textcnn] [--repeats 4] [--busy 2]

MiniLM, with a new head, and small new students read the Rotten Tomatoes sentences one at a time, ``--repeats`` times on
the machine as it is and ``--repeats`` times beside ``--busy`` processes that compute without a pause.
"""

from __future__ import annotations

import argparse
import multiprocessing

import torch
from rich.console import Console
from rich.table import Table
from training import configuration

from kd.config import build
from kd.measure.cost import Reader, latency, speedup, times_in_turns
from kd.storage.model_folder import load_classifier
from kd.training.single_run import quiet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=["dan", "textcnn"])
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--busy", type=int, default=2)
    options = parser.parse_args()
    quiet()
    table = Table(box=None, pad_edge=False)
    table.add_column("student")
    for name in ("busy beside", "student p50 ms", "teacher p50 ms", "of the medians", "of the turns", "turns"):
        table.add_column(name, justify="right")
    for busy in (0, options.busy):
        others = [multiprocessing.Process(target=compute, daemon=True) for _ in range(busy)]
        for other in others:
            other.start()
        for name in options.students:
            measure(table, name, busy, options.repeats)
        for other in others:
            other.kill()
    Console().print(f"{torch.get_num_threads()} threads")
    Console().print(table)


def measure(table: Table, name: str, busy: int, repeats: int) -> None:
    """Add a row for each repetition with one student."""
    config = configuration(name)
    splits, teacher = build.splits(config), build.teacher(config)
    tokenizer = build.tokenizer(config, splits.train["text"], teacher)
    student = build.student(config, tokenizer, splits.label_names, teacher).eval()
    model = load_classifier(teacher.backbone, new_head=True, label_names=["negative", "positive"])
    sides = [
        [Reader(student, tokenizer, config.data.max_length)],
        [Reader(model, teacher.tokenizer, teacher.max_length)],
    ]
    for _ in range(repeats):
        own, theirs = times_in_turns(sides, splits.validation["text"][:200])
        one, other, found = latency(own)["p50_ms"], latency(theirs)["p50_ms"], speedup(own, theirs)
        figures = (f"{one:.3f}", f"{other:.1f}", f"{other / one:.1f}", f"{found['ratio']:.1f}", str(found["turns"]))
        table.add_row(name, str(busy), *figures)


def compute() -> None:
    """Compute without a pause."""
    while True:
        sum(range(100_000))


if __name__ == "__main__":
    main()
