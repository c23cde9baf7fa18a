"""Measure what the rules need: facts about data and teacher, and the size and speed of students on this machine."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from kd.advice.rules import Facts
from kd.assembly import assemble
from kd.config import build
from kd.data.batching import EncodedSplit, LengthBucketSampler, in_slices, labels_of
from kd.data.sources import Splits
from kd.errors import KDError
from kd.measure.cost import Reader, latency, times_in_turns
from kd.models.fitted import FittedStudent, Rows
from kd.runtime.devices import Devices
from kd.teacher.answers import Answers
from kd.teacher.base import AnyTeacher
from kd.teacher.teacher import Teacher

SAMPLE, FITTED_SAMPLE, STEPS, TIMED = 640, 2_000, 12, 100
"""Rows for the steps of a network and for the fit of a bag, steps, and texts on which the latency is measured."""
OF_A_RUN = 8.0
"""Seconds that a run takes beside its training on one core: reading, evaluation, files."""


@dataclass(frozen=True)
class Cost:
    """What a student costs: bytes of its weights, median milliseconds of a text, seconds of a row in an epoch."""

    size: int
    ms: float
    row: float
    fitted: bool

    def seconds(self, rows: int, epochs: int) -> float:
        """Return the seconds of a run with these rows."""
        return OF_A_RUN + self.row * rows * (1 if self.fitted else epochs)


@dataclass(frozen=True)
class TeacherCost:
    """What a teacher costs: seconds of its fine-tuning, of one answer, and milliseconds of a text.

    Args:
        labelled: its answers to the training rows are on disk.
    """

    tuning: float = 0.0
    answer: float = 0.0
    ms: float | None = None
    labelled: bool = False


def facts_of(config: DictConfig, splits: Splits, labels: bool) -> Facts:
    """Return what the rules read about the data and the teacher of a configuration."""
    teacher, gold = build.teacher(config), labels_of(splits.train)
    sample = list(in_slices(splits.train.select(range(min(1_000, len(gold))))["text"]))
    words = float(np.mean([len(text.split()) for text in sample]))
    letters = [letter for text in sample for letter in text if letter.isalpha()]
    labelled = int((gold >= 0).sum())
    return Facts(
        data=config.data.name,
        rows=len(gold),
        labelled=labelled,
        classes=len(splits.label_names),
        words=words,
        spaced=sum(map(len, sample)) / max(1.0, words * len(sample)) < 15,
        unlabelled=len(gold) - labelled,
        teacher=kind_of(teacher, config, splits),
        layers=teacher.config.num_hidden_layers if isinstance(teacher, Teacher) and teacher.seeds == 1 else 0,
        words_at_hand=teacher is not None and teacher.has_words,
        latin=sum(letter.isascii() for letter in letters) > len(letters) / 2,
        labels=labels,
    )


def kind_of(teacher: AnyTeacher | None, config: DictConfig, splits: Splits) -> Any:
    """Return `Facts.teacher`."""
    if teacher is None or isinstance(teacher, Answers):
        return "none" if teacher is None else "answers"
    if not isinstance(teacher, Teacher):
        return "untuned"
    ready = not teacher.fine_tune or (Path(config.outputs) / "teachers" / teacher.key(splits)).is_dir()
    return "tuned" if ready else "untuned"


def teacher_cost(config: DictConfig, splits: Splits, facts: Facts) -> TeacherCost:
    """Time the backbone of a single teacher; other teachers are not timed."""
    teacher = build.teacher(config)
    if not isinstance(teacher, Teacher):
        return TeacherCost()
    ready = teacher.untrained(Devices.of(config))
    texts = splits.train.select(range(min(128, len(splits.train))))["text"][:]
    with contextlib.redirect_stdout(io.StringIO()):  # the progress bars
        ready.live_logits(texts[:8])
        start = time.perf_counter()
        ready.live_logits(texts)
        row = (time.perf_counter() - start) / len(texts)
    tuning = 0.0 if facts.teacher == "tuned" else 3 * row * facts.labelled * teacher.epochs  # backward costs two of it
    times = times_in_turns([[Reader(ready.model, ready.tokenizer, ready.max_length)]], texts, turns=20, calls=1)
    outputs = Path(config.outputs)
    known = facts.teacher == "tuned" and teacher.ready(splits, outputs).labelled_in(splits.train["text"], outputs)
    return TeacherCost(tuning, row, latency(times[0])["p50_ms"], labelled=known not in (False, None))


def student_costs(configs: Mapping[str, DictConfig], splits: Splits) -> dict[str, Cost | KDError]:
    """Time the students of some configurations before their training, with ``method=supervised``.

    A configuration that does not fit the data or the teacher has its error in place of its cost.

    A bag has its n-grams only after a fit: it is fitted to a sample, and its size and time are scaled to all rows.
    """
    found, refused, readers = dict[str, tuple[int, float, bool]](), dict[str, KDError](), list[list[Reader]]()
    for name, config in configs.items():
        try:
            reader, size, row, fitted = untimed(config, splits)
            found[name] = (size, row, fitted)
            readers.append([reader])
        except KDError as error:
            refused[name] = error
    texts = splits.validation.select(range(min(TIMED, len(splits.validation))))["text"][:]
    times = times_in_turns(readers, texts, calls=1) if readers else []
    costs = {
        name: Cost(size, latency(own)["p50_ms"], row, fitted)
        for (name, (size, row, fitted)), own in zip(found.items(), times, strict=True)
    }
    return {**costs, **refused}


def untimed(config: DictConfig, splits: Splits) -> tuple[Reader, int, float, bool]:
    """Return a student, its bytes, the seconds of a row in training, and whether it is fitted in closed form."""
    assembly = assemble(config, splits, build.teacher(config))
    student, tokenizer = assembly.student, assembly.tokenizer
    sample = FITTED_SAMPLE if isinstance(student, FittedStudent) else SAMPLE
    rows = splits.train.select(range(min(sample, len(splits.train))))
    encoded = build.encoded(rows, tokenizer, config.data.max_length)
    encoded = replace(encoded, labels=np.arange(len(encoded)) % len(splits.label_names))  # some rows have none
    part = 1.0
    if isinstance(student, FittedStudent):
        part = len(splits.train) / len(encoded)
        row = fit_seconds(student, encoded, frozenset(tokenizer.all_special_ids)) / len(encoded)
    else:
        row = step_seconds(assembly.method, encoded, config.data.batch_size) / config.data.batch_size
    size = sum(tensor.numel() * tensor.element_size() for tensor in student.state_dict().values())
    reader = Reader(student, tokenizer, config.data.max_length)
    return reader, round(part * size), row, isinstance(student, FittedStudent)


def fit_seconds(student: FittedStudent, encoded: EncodedSplit, special: frozenset[int]) -> float:
    """Return the seconds of a fit in closed form."""
    rows = Rows(encoded.tokens, np.eye(int(student.config.num_labels or 0))[encoded.labels])
    start = time.perf_counter()
    student.fit(rows, rows, special)
    return time.perf_counter() - start


def step_seconds(method: Any, encoded: EncodedSplit, batch_size: int) -> float:
    """Return the mean seconds of a training step: losses, backward, clipping, optimizer."""
    optimizer, times = method.new_optimizer(), list[float]()
    for rows in islice(cycle(LengthBucketSampler(encoded.tokens.lengths, batch_size)), STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        method.losses(encoded[rows])["total"].backward()
        dense = [one for one in method.parameters() if one.grad is not None and not one.grad.is_sparse]
        torch.nn.utils.clip_grad_norm_(dense, 1.0)
        optimizer.step()
        times.append(time.perf_counter() - start)
    return float(np.mean(times[2:]))
