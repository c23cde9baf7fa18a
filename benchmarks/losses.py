"""What each loss costs: a training step with it against a step of plain distillation.

    python benchmarks/losses.py [--rows 1024] [--repeats 5] [--threads 2] [--losses hint rkd ...]

The student is a small transformer with as many heads as the MiniLM teacher, which can take every loss; the teacher's
outputs come from the cache, in memory. A step is the losses, backward, clipping and AdamW on 64 Rotten Tomatoes
sentences; both sides of a ratio alternate on the same batches, and the table gives medians. "MB" is what the
teacher's outputs for these rows take in the cache beyond the logits.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from kd.config import build
from kd.config.compose import composed
from kd.config.folder import configuration_folder
from kd.config.make import make
from kd.contract import FeatureLoss
from kd.data.batching import EncodedSplit, LengthBucketSampler
from kd.features.feature import bytes_a_row
from kd.methods.base import Method
from kd.methods.distillation import cached_teacher
from kd.storage.model_folder import load_classifier
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.ready import ReadyTeacher
from kd.training.single_run import quiet

BATCH_SIZE = 64
STUDENT = (
    "student=transformer",
    "student.hidden_size=192",
    "student.num_attention_heads=12",
    "tokenizer=teacher",
    "temperature=1",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    every = sorted(path.stem for path in (configuration_folder() / "loss").glob("*.yaml"))
    parser.add_argument("--losses", nargs="+", default=every, choices=every)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet()
    logging.getLogger("kd").setLevel(logging.ERROR)  # the teacher knows nothing here, and the losses would say so
    warnings.filterwarnings("ignore")

    with tempfile.TemporaryDirectory() as folder:
        kit = Kit(Path(folder), options.rows)
        plain = kit.method("soft_target")
        rows = []
        for name in options.losses:
            method, split, megabytes = kit.method(name)
            one = lambda method=method, split=split: epoch(method, split)  # noqa: E731
            other = lambda: epoch(*plain[:2])  # noqa: E731
            one(), other()
            pairs = [(one(), other()) for _ in range(options.repeats)]
            ratio = statistics.median(first / second for first, second in pairs)
            steps = -(-options.rows // BATCH_SIZE)
            rows.append((name, 1000 * statistics.median(first for first, _ in pairs) / steps, ratio, megabytes))
    table = Table(
        box=None, pad_edge=False, title_justify="left", title=f"a step of {BATCH_SIZE} rows, {options.threads} threads"
    )
    table.add_column("loss")
    for name in ("ms a step", "over soft_target", f"MB for {options.rows} rows"):
        table.add_column(name, justify="right")
    for name, milliseconds, ratio, megabytes in sorted(rows, key=lambda row: row[2]):
        table.add_row(name, f"{milliseconds:.1f}", f"{ratio:.2f}", f"{megabytes:.1f}")
    Console().print(table)


class Kit:
    """Teacher, rows and tokenizer, from which every method of the comparison is made."""

    def __init__(self, folder: Path, rows: int):
        config = configuration("soft_target")
        splits = build.splits(config)
        self.splits = splits
        self.train, self.teacher = splits.train.select(range(rows)), build.teacher(config)
        load_classifier(self.teacher.backbone, new_head=True, label_names=["negative", "positive"]).save_pretrained(
            folder / "teacher"
        )
        self.teacher.tokenizer.save_pretrained(folder / "teacher")
        ready = ReadyTeacher("minilm", folder / "teacher", config.data.max_length, 128, {})
        self.answers = TeacherOutputs(ready, folder, cache=True)
        self.tokenizer = build.tokenizer(config, splits.train["text"], self.teacher)
        self.encoded = build.encoded(self.train, self.tokenizer, config.data.max_length)

    def method(self, loss: str) -> tuple[Method, EncodedSplit, float]:
        """The method with this loss alone, its rows with the teacher's columns, and what these take."""
        config = configuration(loss)
        student = build.student(config, self.tokenizer, ["negative", "positive"], self.teacher)
        objective = build.objective(config, 2)
        known: dict = {}
        features = frozenset()
        if isinstance(objective.transfer[loss], FeatureLoss):
            options = build.method_options(config)
            matching = build.matching(config, options, objective.transfer, student, self.teacher.config)
            known = {"options": options, "matchings": {"teacher": matching}}
            features = matching.features
        method = build.method(config, student, self.splits, objective=objective, teacher=cached_teacher, **known)
        split = self.answers.attached_to(self.encoded, self.train, "train", features)
        mean = len(self.encoded.tokens.values) / len(self.encoded)
        size = sum(bytes_a_row(self.teacher.config, feature, mean) for feature in features) * len(self.encoded)
        return method, split, size / 1e6


def configuration(loss: str) -> DictConfig:
    """As ``kd train`` composes it."""
    term = make(composed([f"loss=[{loss}]", *STUDENT]).loss[loss])
    method = "hints" if isinstance(term, FeatureLoss) else "distillation"
    return composed([f"method={method}", f"loss=[{loss}]", *STUDENT])


def epoch(method: Method, split: EncodedSplit) -> float:
    """Seconds of one pass over the rows."""
    optimizer = method.new_optimizer()
    batches = [split[rows] for rows in LengthBucketSampler(split.tokens.lengths, BATCH_SIZE, shuffle=True)]
    start = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        method.losses(batch)["total"].backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
