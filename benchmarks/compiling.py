"""Measure `compile=true`: a student's training step with and without torch.compile, and the cost of compiling.

    python benchmarks/compiling.py [--rows 2048] [--repeats 5] [--threads 2] [--students dan textcnn bilstm transformer]

Distillation from random logits on the Rotten Tomatoes sentences, in batches of 64 rows of similar length, so nearly
every batch has a different length. "compile s" is the extra time of the first epoch and the first validation. "graphs"
counts compiled graphs, recompilations for another shape or mode included. "pays after" is the number of steps after
which the compiled student has made up for compiling. Both sides alternate, and the table has medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch._dynamo.utils import counters
from training import configuration

from kd.config import build
from kd.data.batching import EncodedSplit, LengthBucketSampler
from kd.methods.base import Method
from kd.methods.distillation import cached_teacher
from kd.training.single_run import quiet

BATCH_SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--students", nargs="+", default=["dan", "textcnn", "bilstm", "transformer"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet()
    warnings.filterwarnings("ignore")
    config = configuration("dan")
    splits, teacher = build.splits(config), build.teacher(config)
    tokenizer = build.tokenizer(config, splits.train["text"], teacher)
    train = splits.train.select(range(options.rows))
    logits = np.random.default_rng(0).normal(size=(options.rows, 2)).astype(np.float32)
    rows = build.encoded(train, tokenizer, config.data.max_length, teacher_logits=logits)
    steps = len(LengthBucketSampler(rows.tokens.lengths, BATCH_SIZE))

    table = Table(box=None, pad_edge=False)
    table.add_column("student")
    for name in ("eager ms", "compiled ms", "eager/compiled", "compile s", "graphs", "pays after"):
        table.add_column(name, justify="right")
    for name in options.students:
        config = configuration(name)

        def method(config=config) -> Method:
            student = build.student(config, tokenizer, splits.label_names, teacher)
            return build.method(config, student, splits, objective=build.objective(config, 2), teacher=cached_teacher)

        eager, compiled = method(), method()
        torch._dynamo.reset()
        counters.clear()
        compiled.student.compile(dynamic=True)
        firsts = epoch(compiled, rows, 0) + validation(compiled, rows)
        epoch(eager, rows, 0), validation(eager, rows)
        pairs = [(epoch(eager, rows, n), epoch(compiled, rows, n)) for n in range(1, 1 + options.repeats)]
        one, other = (statistics.median(side) for side in zip(*pairs, strict=True))
        cost = firsts - other - validation(compiled, rows)
        gain = (one - other) / steps
        table.add_row(
            name,
            *(f"{1000 * seconds / steps:.2f}" for seconds in (one, other)),
            f"{statistics.median(first / second for first, second in pairs):.2f}",
            f"{cost:.1f}",
            str(counters["stats"]["unique_graphs"]),
            f"{cost / gain:.0f} steps" if gain > 0 else "never",
        )
    console = Console()
    lengths = {int(rows.tokens.lengths[batch].max()) for batch in LengthBucketSampler(rows.tokens.lengths, BATCH_SIZE)}
    console.print(f"{steps} steps of {BATCH_SIZE} rows, {len(lengths)} lengths, {options.threads} threads")
    console.print(table)


def epoch(method: Method, rows: EncodedSplit, number: int) -> float:
    """Return the seconds of one training pass over the rows."""
    sampler = LengthBucketSampler(rows.tokens.lengths, BATCH_SIZE, shuffle=True)
    sampler.set_epoch(number)
    batches = [rows[batch] for batch in sampler]
    method.student.train()
    optimizer = method.new_optimizer()
    start = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        method.losses(batch)["total"].backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
    return time.perf_counter() - start


@torch.inference_mode()
def validation(method: Method, rows: EncodedSplit) -> float:
    """Return the seconds of one pass over the rows without gradients."""
    batches = [rows[batch] for batch in LengthBucketSampler(rows.tokens.lengths, 256)]
    method.student.eval()
    start = time.perf_counter()
    for batch in batches:
        method.logits(batch)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
