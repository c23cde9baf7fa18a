"""Measure two kernels on the CPU against those that torch chooses: the BiLSTM's padded rows and fused AdamW.

    python benchmarks/speed.py [--rows 64] [--width 128] [--repeats 41] [--threads 2]
    python benchmarks/speed.py --runs OLD [--students dan bilstm] [--repeats 5] [--epochs 6]

The first command times the BiLSTM on rows of 10 to 45 steps (forward and backward, forward alone, one text alone) and a
step of AdamW on the weights of each student. The second trains whole runs with ``kd train`` on the Rotten Tomatoes
sentences, once with the kd in the folder OLD, a checkout of an older commit, and once with this one. It compares the
seconds of training, the CPU seconds of the whole command, and the accuracies.

Both sides take turns. The tables have medians and the median of the ratios of neighbouring measurements, with its
quartiles, so that other load on the machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from kd.methods.optimizer import use_fused_kernel
from kd.models import BiLSTMConfig, DANConfig
from kd.models.bilstm import run_packed, run_padded
from kd.models.pretrained import new_student

STEPS = (10, 45)
HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=Path, help="a checkout of an older kd; compares whole runs")
    parser.add_argument("--epochs", type=int, default=6, help="of a whole run")
    parser.add_argument("--students", nargs="+", default=["dan", "bilstm"])
    options = parser.parse_args()
    if options.runs:
        whole_runs(options.runs.resolve(), options.students, options.repeats or 5, options.threads, options.epochs)
        return
    torch.set_num_threads(options.threads)
    kernels(options.rows, options.width, options.repeats or 41, options.threads)


def kernels(rows: int, width: int, repeats: int, threads: int) -> None:
    """Print the table of the kernels."""
    table = table_of(f"{rows} rows of {STEPS[0]} to {STEPS[1]} steps, {width} wide, {threads} threads", "ms")
    torch.manual_seed(0)
    lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
    lengths = torch.randint(STEPS[0], STEPS[1] + 1, (rows,))
    inputs = torch.randn(rows, STEPS[1], width)
    one = inputs[:1, :25], torch.tensor([25])
    cases: dict[str, tuple[Callable, tuple]] = {
        "bilstm forward and backward": (training_step, (inputs.requires_grad_(), lengths)),
        "bilstm forward": (inference, (inputs, lengths)),
        "bilstm forward, one text": (inference, one),
    }
    for name, (measure, given) in cases.items():
        both = [(run_packed, lstm, *given), (run_padded, lstm, *given)]
        add(table, name, [tuple(measure(*side) for side in both) for _ in range(repeats)])
    for name, config in (("dan", DANConfig()), ("bilstm", BiLSTMConfig())):
        pairs = [torch.optim.AdamW(new_student(config).parameters()) for _ in range(2)]
        use_fused_kernel(pairs[1])
        add(table, f"adamw, weights of {name}", [tuple(map(adamw_step, pairs)) for _ in range(repeats)])
    Console().print(table)


def training_step(run: Callable, lstm: nn.LSTM, inputs: torch.Tensor, lengths: torch.Tensor) -> float:
    """Return the milliseconds of a forward and backward pass."""
    start = time.perf_counter()
    run(lstm, inputs, lengths).sum().backward()
    return 1000 * (time.perf_counter() - start)


@torch.inference_mode()
def inference(run: Callable, lstm: nn.LSTM, inputs: torch.Tensor, lengths: torch.Tensor) -> float:
    """Return the milliseconds of a forward pass without gradients."""
    start = time.perf_counter()
    run(lstm, inputs, lengths)
    return 1000 * (time.perf_counter() - start)


def adamw_step(optimizer: torch.optim.Optimizer) -> float:
    """Return the milliseconds of an optimizer step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, 1e-3)
    start = time.perf_counter()
    optimizer.step()
    return 1000 * (time.perf_counter() - start)


def whole_runs(old: Path, students: list[str], repeats: int, threads: int, epochs: int) -> None:
    """Train the same runs with both checkouts, and print the seconds and the accuracies."""
    table = table_of(f"training of a run of {epochs} epochs, {threads} threads", "s")
    with tempfile.TemporaryDirectory() as folder:
        for student in students:
            pairs, cpu, accuracies = [], [], []
            for number in range(repeats):
                figures = [
                    train(checkout, Path(folder) / f"{student}-{number}-{side}", student, threads, epochs)
                    for side, checkout in (("old", old), ("new", HERE))
                ]
                pairs.append(tuple(found["training_seconds"] for found in figures))
                cpu.append(tuple(found["cpu_seconds"] for found in figures))
                accuracies = [tuple(found[name]["accuracy"] for name in ("validation", "test")) for found in figures]
            add(table, student, pairs)
            add(table, f"{student}, CPU s of the whole command", cpu)
            print(student, "accuracy on validation and test, before and after:", *accuracies, flush=True)
    Console().print(table)


def train(checkout: Path, run: Path, student: str, threads: int, epochs: int) -> dict:
    """Train a run with the kd of a checkout; return its ``metrics.json`` and the CPU seconds of the command."""
    command = [sys.executable, "-m", "kd", "train", f"student={student}", "method=supervised", "embeddings=random"]
    command += ["trainer=cpu", f"trainer.max_epochs={epochs}", f"threads={threads}", "callbacks=[checkpoint]"]
    command += ["teacher=none", "tokenizer=words", f"hydra.run.dir={run}", f"outputs={run.parent / 'outputs'}"]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    before = cpu_seconds()
    subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
    return json.loads((run / "metrics.json").read_text()) | {"cpu_seconds": cpu_seconds() - before}


def cpu_seconds() -> float:
    """Return the seconds that the processes started so far have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table_of(title: str, unit: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in (f"before {unit}", f"now {unit}", "ratio", "quartiles"):
        table.add_column(name, justify="right")
    return table


def add(table: Table, name: str, pairs: list[tuple[float, float]]) -> None:
    """Add a row: the medians of both sides, and of their ratio; with several pairs the first warms up."""
    pairs = pairs[1:] if len(pairs) > 10 else pairs
    ratios = [before / now for before, now in pairs]
    low, _, high = statistics.quantiles(ratios) if len(ratios) > 1 else ratios * 3
    sides = [f"{statistics.median(side):.2f}" for side in zip(*pairs, strict=True)]
    table.add_row(name, *sides, f"{statistics.median(ratios):.2f}", f"{low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
