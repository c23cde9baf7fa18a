"""What labelling costs beside the bare forward of the same tokens, and which batches and engines are fast.

    python benchmarks/labelling.py [--rows 300] [--repeats 5] [--threads 1] [--long] [--compile]

MiniLM with a new head labels Rotten Tomatoes sentences; ``--long`` joins neighbouring sentences into texts of 1 to 12
of them. All sides take turns; the table has the median of the ratios to the bare forward of the same turn. Times are
CPU seconds of the process, which other load on the machine hardly changes.

* bare: the model alone, on the batches of labelling, which are prepared beforehand;
* labelling: everything that ``kd`` does, from texts to stored logits;
* B rows, N tokens, under P %: the model alone on batches of B rows, or of as many rows as fit into N tokens with
  padding, or of as many as need less than this padding; labelling and bare have those under 5 %;
* compiled: the same batches under ``torch.compile(dynamic=True)``, after two passes.

The first lines are the shares of padding, on all sentences and on those that are timed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from training import configuration

from kd.config import build
from kd.data.batching import EncodedSplit, LengthBucketSampler, padding_share
from kd.measure.inference import all_logits
from kd.storage.model_folder import load_classifier
from kd.teacher.ready import ReadyTeacher, tight_batches
from kd.training.single_run import quiet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet()
    config = configuration("bilstm")
    teacher, splits = build.teacher(config), build.splits(config)
    folder = Path(tempfile.mkdtemp())
    load_classifier(teacher.backbone, new_head=True, label_names=["negative", "positive"]).save_pretrained(folder)
    teacher.tokenizer.save_pretrained(folder)
    longest = 512 if options.long else teacher.max_length
    ready = ReadyTeacher(teacher.name_or_path, folder, longest, teacher.labelling_batch_size, {})
    every = [text for split in (splits.train, splits.validation, splits.test) for text in split["text"]]
    every = joined(every) if options.long else every
    for name, texts in (("all", every), (f"{options.rows}", every[: options.rows])):
        lengths = ready.tokens(texts).lengths
        shares = {
            kind: f"{padding_share(lengths, batches):.1%}"
            for kind, batches in batchings(lengths, ready.batch_size).items()
        }
        print(f"padding of {name} texts ({len(texts)}, mean {lengths.mean():.1f} tokens): {shares}")
    measure(ready, every[: options.rows], options.repeats, options.compile)


def joined(texts: list[str]) -> list[str]:
    """Return texts of 1 to 12 neighbouring sentences."""
    generator, found, start = np.random.default_rng(0), [], 0
    while start < len(texts):
        size = int(generator.integers(1, 13))
        found.append(" ".join(texts[start : start + size]))
        start += size
    return found


def batchings(lengths: np.ndarray, batch_size: int) -> dict[str, list]:
    """Return the rows of each batch for each way to make batches."""
    found: dict[str, list] = {"unsorted": list(np.array_split(np.arange(len(lengths)), -(-len(lengths) // batch_size)))}
    for size in sorted({batch_size, 32, 16}, reverse=True):
        found[f"{size} rows"] = list(LengthBucketSampler(lengths, size))
    found["1024 tokens"] = of_tokens(lengths, 1024)
    for most in (0.05, 0.1):
        found[f"under {most:.0%}"] = tight_batches(lengths, batch_size, most)
    return found


def of_tokens(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Return batches, longest rows first, of at most ``budget`` tokens with their padding."""
    order, found, start = np.argsort(-lengths, kind="stable"), [], 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        found.append(order[start : start + size])
        start += size
    return found


def measure(ready: ReadyTeacher, texts: list[str], repeats: int, compiled: bool) -> None:
    """Time all sides in turns, and print the table."""
    tokens, model = ready.tokens(texts), ready.model
    split = EncodedSplit(tokens, np.full(len(texts), -100), ready.tokenizer.pad_token_id)
    batches = batchings(tokens.lengths, ready.batch_size)
    prepared = {kind: [split[rows] for rows in of_kind] for kind, of_kind in batches.items()}
    today = "under 5%"
    sides: dict[str, Callable[[], object]] = {"bare": lambda: all_logits(model, prepared[today], len(texts))}
    sides["labelling"] = lambda: ready.cached(texts, "train", Path(tempfile.mkdtemp()))
    for kind in batches:
        sides[kind] = lambda kind=kind: all_logits(model, prepared[kind], len(texts))  # type: ignore[misc]
    if compiled:
        fast = torch.compile(model, dynamic=True)
        sides["compiled"] = lambda: all_logits(fast, prepared[today], len(texts))  # type: ignore[arg-type]
        for _ in range(2):
            sides["compiled"]()
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.process_time()
            side()
            taken[name].append(time.process_time() - start)
    table = Table(box=None, pad_edge=False)
    for column in ("side", "padding", "rows a CPU s", "times bare"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for name, seconds in taken.items():
        ratio = statistics.median(one / bare for one, bare in zip(seconds, taken["bare"], strict=True))
        padding = padding_share(tokens.lengths, batches.get(name, batches[today]))
        table.add_row(name, f"{padding:.1%}", f"{len(texts) / statistics.median(seconds):.1f}", f"{ratio:.3f}")
    Console().print(f"{len(texts)} texts, {torch.get_num_threads()} threads")
    Console().print(table)


if __name__ == "__main__":
    main()
