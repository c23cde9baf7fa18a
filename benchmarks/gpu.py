"""Measure how well kd uses a GPU: a teacher that labels, small students trained from the cache, several jobs at once.

    python benchmarks/gpu.py [--rows 65536] [--students bilstm textcnn dan] [--slots 1 2 4 8]

The authors had no GPU, so this was never run on one. Three tables on the Rotten Tomatoes sentences, repeated:

* labelling by MiniLM in 32 bits and in bf16 (teacher.answer_precision): tokens a second, and the share of the GPU's
  bf16 matrix rate, which is measured first with products of 8192 x 8192 matrices. Each token counts as 2 operations for
  each weight outside the word embeddings, and 4 L d for attention in each layer (L tokens, width d);
* an epoch of cached distillation in bf16-mixed: rows and tokens a second, and the share of the time in which a kernel
  runs (torch.profiler, in a separate epoch), plain, compiled (compile=true) and as CUDA graphs
  (mode="reduce-overhead", one graph for each length);
* a sweep by the number of jobs that run at the same time on the GPU (hydra.launcher.slots).
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from training import configuration

from kd.config import build
from kd.config.trainer import make_trainer
from kd.data.batching import EncodedSplit, LengthBucketSampler, Ragged
from kd.data.module import TextDataModule
from kd.measure.cost import parameter_counts
from kd.measure.inference import outputs_by_row
from kd.methods.base import Method
from kd.methods.distillation import cached_teacher
from kd.storage.model_folder import load_classifier
from kd.teacher.ready import PRECISIONS
from kd.training.single_run import quiet

BATCH_SIZE, LABELLING_BATCH = 64, 512
ACTIVITIES = [ProfilerActivity.CUDA]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--students", nargs="+", default=["bilstm", "textcnn", "dan"])
    parser.add_argument("--slots", nargs="+", type=int, default=[1, 2, 4, 8])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a GPU, but torch finds none; run it where torch.cuda.is_available()")
    quiet()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    console = Console()
    console.print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.rows} rows")
    kit = Kit(options.rows)
    console.print(labelling(kit, "cuda"))
    console.print(students(kit, options.students, "gpu"))
    console.print(slots(options.students[0], options.slots))


class Kit:
    """The rows, the teacher and the tokenizer of all measurements."""

    def __init__(self, rows: int) -> None:
        config = configuration("dan")
        self.splits, self.teacher = build.splits(config), build.teacher(config)
        self.tokenizer = build.tokenizer(config, self.splits.train["text"], self.teacher)
        texts = self.splits.train["text"][:]
        of_teacher = repeated(self.teacher.tokens(texts), rows)
        self.teacher_rows = EncodedSplit(of_teacher, np.full(rows, -100), self.teacher.tokenizer.pad_token_id)
        encoded = build.encoded(self.splits.train, self.tokenizer, config.data.max_length)
        logits = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
        labels = np.resize(encoded.labels, rows)
        columns = {"teacher_logits": logits}
        self.train = EncodedSplit(repeated(encoded.tokens, rows), labels, encoded.padding, columns=columns)
        self.validation = build.encoded(self.splits.validation, self.tokenizer, config.data.max_length)

    def method(self, student: str) -> Method:
        """Return a distillation of a new student."""
        config = configuration(student)
        made = build.student(config, self.tokenizer, self.splits.label_names, self.teacher)
        return build.method(config, made, self.splits, objective=build.objective(config, 2), teacher=cached_teacher)


def repeated(tokens: Ragged, rows: int) -> Ragged:
    """Repeat the rows until there are ``rows`` of them."""
    lengths = np.resize(tokens.lengths, rows)
    times = -(-rows // len(tokens))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Ragged(np.tile(tokens.values, times)[: offsets[-1]], offsets)


def seconds(action: Callable[[], object], device: str) -> float:
    """Return the seconds of an action, with all kernels that it starts."""
    settle(device)
    start = time.perf_counter()
    action()
    settle(device)
    return time.perf_counter() - start


def settle(device: str) -> None:
    """Wait until all kernels have ended."""
    if device != "cpu":
        torch.cuda.synchronize()


def matrix_rate(device: str, size: int = 8192, times: int = 50) -> float:
    """Return the operations a second of bf16 products of square matrices."""
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def products() -> None:
        for _ in range(times):
            one @ other

    products()
    return times * 2 * size**3 / seconds(products, device)


def labelling(kit: Kit, device: str, **matrices: int) -> Table:
    table = new_table("labelling", "tokens/s", "rows/s", "TFLOP/s", "share of the matrix rate")
    rate = matrix_rate(device, **matrices)
    table.add_row("(matrix product)", "", "", f"{rate / 1e12:.1f}", "1")
    tokens = len(kit.teacher_rows.tokens.values)
    sampler = LengthBucketSampler(kit.teacher_rows.tokens.lengths, LABELLING_BATCH)
    for name, dtype in PRECISIONS.items():
        model = load_classifier(kit.teacher.backbone, new_head=True, label_names=["negative", "positive"]).to(
            device, dtype
        )
        weights = parameter_counts(model)["without_embeddings"]
        lengths = kit.teacher_rows.tokens.lengths.astype(np.int64)
        attention = 4 * model.config.num_hidden_layers * model.config.hidden_size * int((lengths**2).sum())
        work = 2 * weights * tokens + attention
        label = lambda model=model: [None for _ in outputs_by_row(model, (kit.teacher_rows[b] for b in sampler))]  # noqa: E731
        label()
        taken = seconds(label, device)
        figures = (f"{tokens / taken:,.0f}", f"{len(kit.teacher_rows) / taken:,.0f}", f"{work / taken / 1e12:.2f}")
        table.add_row(name, *figures, f"{work / taken / rate:.3f}")
    return table


def students(kit: Kit, names: list[str], accelerator: str) -> Table:
    table = new_table("an epoch from the cache", "", "s", "rows/s", "tokens/s", "GPU busy", "first epoch s")
    tokens = len(kit.train.tokens.values)
    for name in names:
        for mode, options in MODES.items():
            try:
                first, taken, busy = epochs(kit.method(name), kit, options, accelerator)
            except RuntimeError as error:  # not every student can be compiled in every mode
                table.add_row(name, mode, str(error).splitlines()[0][:60])
                continue
            rates = (f"{taken:.2f}", f"{len(kit.train) / taken:,.0f}", f"{tokens / taken:,.0f}")
            table.add_row(name, mode, *rates, f"{busy:.0%}", f"{first:.1f}")
    return table


MODES = {
    "plain": None,
    "compiled": {"dynamic": True},
    "CUDA graphs": {"mode": "reduce-overhead", "dynamic": False},
}


def epochs(method: Method, kit: Kit, compiled: dict | None, accelerator: str) -> tuple[float, float, float]:
    """Return the seconds of the first and the second epoch, and the share of the third in which kernels ran."""
    if compiled is not None:
        torch._dynamo.reset()
        torch._dynamo.config.recompile_limit = 64  # CUDA graphs: one for each length
        method.student.compile(**compiled)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = configuration("dan")
        config.callbacks = {}
        precision = "bf16-mixed" if accelerator == "gpu" else "32-true"
        few = {"max_epochs": 3, "accelerator": accelerator, "precision": precision, "limit_val_batches": 1}
        config.trainer.update({**few, "enable_progress_bar": False})
        trainer = make_trainer(config, Path(folder))
        trainer.callbacks.append(clock)
        trainer.fit(method, TextDataModule(kit.train, kit.validation, BATCH_SIZE))
    return clock.seconds[0], clock.seconds[1], clock.busy / clock.seconds[2]


class Clock(lightning.Callback):
    """Measures the time of each epoch's training batches, and of the kernels in the third epoch."""

    def __init__(self) -> None:
        self.seconds, self.busy = [], 0.0

    def on_train_epoch_start(self, trainer, method):
        settle(method.device.type)
        self.profile = profile(activities=ACTIVITIES) if trainer.current_epoch == 2 else None
        if self.profile:
            self.profile.start()
        self.start = time.perf_counter()

    def on_validation_start(self, trainer, method):
        settle(method.device.type)
        self.seconds.append(time.perf_counter() - self.start)
        if self.profile:
            self.profile.stop()
            kernels = (event for event in self.profile.events() if event.device_type.name == "CUDA")
            self.busy = covered([(event.time_range.start, event.time_range.end) for event in kernels]) / 1e6


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the total length that the spans cover.

    >>> covered([(5, 6), (0, 2), (1, 3)])
    4
    """
    total, end = 0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def slots(student: str, numbers: list[int], accelerator: str = "gpu", **options: object) -> Table:
    """Measure a sweep over seeds for several numbers of slots."""
    table, jobs = new_table(f"{max(numbers)} jobs of {student}", "s", "against one slot"), max(numbers)
    common = [f"trainer={accelerator}", f"student={student}", "callbacks=[checkpoint]", "hydra.launcher.report=false"]
    common += [f"{key}={value}" for key, value in options.items()]
    first = None
    with tempfile.TemporaryDirectory() as folder:
        common.append(f"outputs={folder}/outputs")
        kd("train", *common, "seed=1000", f"hydra.run.dir={folder}/first")  # fine-tunes and labels
        for number in numbers:
            seeds = f"seed={','.join(map(str, range(jobs)))}"
            sweep = (f"hydra.launcher.slots={number}", f"hydra.sweep.dir={folder}/sweep-{number}")
            taken = seconds(lambda sweep=sweep, seeds=seeds: kd("train", "-m", *common, seeds, *sweep), "cpu")
            first = first or taken
            table.add_row(f"{number} at the same time", f"{taken:.1f}", f"{first / taken:.2f}")
    return table


def kd(*arguments: str) -> None:
    """Run a command; show its output only if it fails."""
    done = subprocess.run([sys.executable, "-m", "kd", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def new_table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    return table


if __name__ == "__main__":
    main()
