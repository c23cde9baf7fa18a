"""What the teacher cache saves, and what the framework costs.

    python benchmarks/training.py [--rows 4096] [--repeats 5] [--threads 2] [--students bilstm dan]

Two tables on the Rotten Tomatoes sentences, batch 64, for BiLSTM and DAN:

* seconds of a distillation epoch with the teacher's logits from the cache against one with the live MiniLM
  teacher, on the same batches;
* seconds of an epoch under kd (Lightning's Trainer, metrics logged, progress bar off) against a bare PyTorch
  loop that does the same arithmetic on the same batches.

The teacher is not fine-tuned: its answers do not matter for the time that they take. Repeats alternate between the
two sides of a ratio, and the table gives medians, so that a noisy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from kd.config import build
from kd.config.compose import composed
from kd.config.trainer import make_trainer
from kd.data.batching import EncodedSplit, LengthBucketSampler
from kd.data.module import TextDataModule
from kd.methods.base import Method
from kd.methods.distillation import FrozenTeacher, cached_teacher
from kd.storage.model_folder import load_classifier
from kd.teacher.ready import ReadyTeacher
from kd.training.single_run import quiet

BATCH_SIZE = 64
TEMPERATURE, ALPHA = 2.0, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096, help="training rows of an epoch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--students", nargs="+", default=["bilstm", "dan"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")

    config = configuration("bilstm")
    splits = build.splits(config)
    splits = replace(
        splits, train=splits.train.select(range(options.rows)), validation=splits.validation.select(range(64))
    )
    teacher = build.teacher(config)
    folder = Path(tempfile.mkdtemp())
    load_classifier(teacher.backbone, new_head=True, label_names=["negative", "positive"]).save_pretrained(folder)
    teacher.tokenizer.save_pretrained(folder)
    ready = ReadyTeacher(teacher.name_or_path, folder, teacher.max_length, teacher.labelling_batch_size, {})
    start = time.perf_counter()
    logits = ready.live_logits(splits.train["text"])
    labelling = time.perf_counter() - start
    tokenizer = build.tokenizer(config, splits.train["text"], teacher)
    cached = build.encoded(splits.train, tokenizer, config.data.max_length, teacher_logits=logits)
    live = replace(
        build.encoded(splits.train, tokenizer, config.data.max_length),
        teacher_tokens=ready.tokens(splits.train["text"]),
        teacher_padding=ready.tokenizer.pad_token_id,
    )
    validation = build.encoded(splits.validation, tokenizer, config.data.max_length)

    cache_rows, overhead_rows = [], []
    for name in options.students:
        config = configuration(name)

        def method(source: Callable, config=config) -> Method:
            student = build.student(config, tokenizer, splits.label_names, teacher)
            return build.method(config, student, splits, objective=build.objective(config, 2), teacher=source)

        with_cache = lambda method=method: kd_epoch(method(cached_teacher), cached, validation)  # noqa: E731
        with_teacher = lambda method=method: kd_epoch(method(FrozenTeacher(ready.model)), live, validation)  # noqa: E731
        bare = lambda method=method: bare_epoch(method(cached_teacher), cached)  # noqa: E731
        cache_rows.append((name, *medians(with_teacher, with_cache, max(1, options.repeats // 2))))
        overhead_rows.append((name, *medians(with_cache, bare, options.repeats)))

    console = Console()
    steps = len(LengthBucketSampler(cached.tokens.lengths, BATCH_SIZE))
    console.print(
        f"{options.rows} rows, {steps} steps of {BATCH_SIZE}, {options.threads} threads; "
        f"labelling once: {labelling:.1f} s"
    )
    console.print(ratio_table("a distillation epoch", "live teacher s", "cache s", cache_rows))
    console.print(ratio_table("framework overhead", "kd s", "bare loop s", overhead_rows))


def configuration(student: str) -> DictConfig:
    """The configuration that ``kd train`` would compose for this student, without a run directory."""
    config = composed([f"student={student}", f"temperature={TEMPERATURE}", f"alpha={ALPHA}"])
    OmegaConf.set_struct(config, False)  # the benchmarks add options to the trainer's
    return config


class Clock(lightning.Callback):
    """Time from the first training batch to the end of the last, as the bare loop counts it."""

    def on_train_epoch_start(self, trainer, method):
        self.start = time.perf_counter()

    def on_validation_start(self, trainer, method):
        self.seconds = time.perf_counter() - self.start


def kd_epoch(method: Method, train: EncodedSplit, validation: EncodedSplit) -> float:
    """Seconds of the training batches of one epoch under kd."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = configuration("bilstm")
        config.callbacks = {}
        config.trainer.update({"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False})
        trainer = make_trainer(config, Path(folder))
        trainer.callbacks.append(clock)
        trainer.fit(method, TextDataModule(train, validation, BATCH_SIZE))
    return clock.seconds


def bare_epoch(method: Method, train: EncodedSplit) -> float:
    """Seconds of the same batches, objective, clipping and optimizer in a plain loop."""
    student = method.student.train()
    optimizer = method.new_optimizer()
    sampler = LengthBucketSampler(train.tokens.lengths, BATCH_SIZE, shuffle=True)
    schedule = method.recipe.schedule(optimizer, len(sampler))
    start = time.perf_counter()
    for rows in sampler:
        batch = train[rows]
        optimizer.zero_grad()
        logits = student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        label = functional.cross_entropy(logits, batch["labels"])
        targets = (batch["teacher_logits"] / TEMPERATURE).log_softmax(dim=1)
        transfer = TEMPERATURE**2 * functional.kl_div(
            (logits / TEMPERATURE).log_softmax(dim=1), targets, reduction="batchmean", log_target=True
        )
        ((1 - ALPHA) * label + ALPHA * transfer).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return time.perf_counter() - start


def medians(one: Callable[[], float], two: Callable[[], float], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the ratios of neighbouring runs; the first pair warms up."""
    one(), two()
    pairs = [(one(), two()) for _ in range(repeats)]
    return (
        statistics.median(first for first, _ in pairs),
        statistics.median(second for _, second in pairs),
        statistics.median(first / second for first, second in pairs),
    )


def ratio_table(title: str, one: str, two: str, rows: list[tuple]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("student")
    for name in (one, two, "ratio"):
        table.add_column(name, justify="right")
    for student, first, second, ratio in rows:
        table.add_row(student, f"{first:.2f}", f"{second:.2f}", f"{ratio:.2f}")
    return table


if __name__ == "__main__":
    main()
