"""Compare a training step of student=ngrams with sparse and with dense gradients, for tables of several sizes.

    python benchmarks/tables.py [--steps 20] [--threads 1]

Each step reads 64 random texts of 30 words, clips the gradient and updates the weights, as `kd train` does. Both kinds
run in turns, so that other work on the machine slows both down alike; the figures are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch.optim import AdamW

from kd.methods.base import decay_groups
from kd.methods.optimizer import clip_with_tables, with_tables
from kd.models.hashed import HashedNGramsConfig
from kd.models.pretrained import new_student

BUCKETS = {"0.1 M": 3_000, "2 M": 31_000, "20 M": 312_000}
WORDS, WIDTH = 20_000, 64


def stepper(buckets: int, sparse: bool) -> Callable[[int], float]:
    """Return a function that makes the step of a number and returns its seconds."""
    sizes = {"buckets": buckets, "embedding_size": WIDTH if buckets > 3_000 else 32, "vocab_size": WORDS}
    torch.manual_seed(0)
    student = new_student(HashedNGramsConfig(**sizes, sparse=sparse, num_labels=2)).train()
    optimizer = with_tables(student, decay_groups(student), lambda groups: AdamW(groups, lr=1e-3))

    def step(number: int) -> float:
        generator = torch.Generator().manual_seed(number)
        # Words by Zipf's law: the texts of a batch share their frequent words and few of their long n-grams.
        ids = (WORDS ** torch.rand(64, 30, generator=generator)).long().clamp(1, WORDS - 1)
        labels = torch.randint(2, (64,), generator=generator)
        start = time.perf_counter()
        optimizer.zero_grad()
        student(ids, labels=labels).loss.backward()
        if sparse:
            clip_with_tables(optimizer, 1.0, "norm")
        else:
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        return time.perf_counter() - start

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = Table(box=None, pad_edge=False, title=f"ms a step of 64, {options.threads} threads", title_justify="left")
    for name in ("table", "dense", "sparse", "ratio"):
        table.add_column(name, justify="right")
    for size, buckets in BUCKETS.items():
        kinds = [stepper(buckets, sparse) for sparse in (False, True)]
        times = [[step(number) for step in kinds] for number in range(options.steps + 3)][3:]
        dense, sparse = (statistics.median(found) for found in zip(*times, strict=True))
        table.add_row(size, f"{1000 * dense:.1f}", f"{1000 * sparse:.1f}", f"{dense / sparse:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
