"""One run, from configuration to a finished run directory."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import torch
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd import build
from kd.data.batching import LengthBucketSampler, labels_of, padding_share
from kd.data.module import TextDataModule
from kd.data.sources import Splits
from kd.inference import all_logits, latency, parameter_counts
from kd.methods.base import Method, run_fit
from kd.metrics import fidelity_metrics, label_metrics
from kd.run import RunDirectory, environment, write_json
from kd.teacher import Answers, ReadyTeacher, check_label_order, labelled_rows

log = logging.getLogger(__name__)


def train_student(config: DictConfig, run: RunDirectory, splits: Splits, checkpoint: Path | None) -> dict[str, Any]:
    """From configuration to a finished run; returns what ``metrics.json`` holds."""
    if config.threads:
        torch.set_num_threads(config.threads)
    log.info("%s", splits.report())
    teacher = build.teacher(config)
    ready = teacher.ready(splits, Path(config.outputs), config.trainer.accelerator) if teacher else None
    transfers = build.method_class(config).reads_teacher
    answers = Answers(ready, Path(config.outputs), config.cache)
    if ready and not teacher.fine_tune:
        logits = answers.of(splits.validation, "validation")
        accuracy = check_label_order(ready.name, logits, labels_of(splits.validation), splits.label_names)
        log.info("teacher: %s is right on %.1f %% of the validation rows", ready.name, 100 * accuracy)
    tokenizer = build.tokenizer(config, splits, teacher)  # from all rows: the baseline has its counterpart's words
    if not transfers:  # what has no label teaches nothing here
        splits = replace(splits, train=labelled_rows(splits.train))
    max_length = config.data.max_length
    train_split = build.encoded(splits.train, tokenizer, max_length)
    known: dict[str, Any] = {}
    if transfers:
        train_split, source = answers.attached_to(train_split, splits.train)
        known = {"losses": build.losses(config, len(splits.label_names)), "teacher": source}
    data = TextDataModule(
        train_split,
        build.encoded(splits.validation, tokenizer, max_length),
        config.data.batch_size,
        config.seed,
    )
    student = build.student(config, tokenizer, splits.label_names, teacher)
    method = build.method(config, student, **known)
    write_json(run.path / "environment.json", environment() | facts(config, splits, ready))
    fitted = fit(config, run, method, data, checkpoint)

    student.eval()
    student.save_pretrained(run.model)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(run.model)
    figures = {
        **{name: config.choices[name] for name in config.choices},
        "seed": config.seed,
        **fitted,
        "padding_share": round(padding_share(data.train.tokens.lengths, list(data.train_sampler())), 4),
        "parameters": parameter_counts(student),
        "model_bytes": (run.model / "model.safetensors").stat().st_size,
        "latency": latency(student, tokenizer, splits.validation["text"][:200], max_length),
        **evaluate(run, student, tokenizer, splits, answers, max_length),
    }
    if ready:
        figures["teacher_cost"] = {
            "name": ready.name,
            "training_seconds": ready.facts.get("training_seconds"),
            "labelling_seconds": round(answers.seconds.get("train", 0.0), 2) or None,
            "parameters": parameter_counts(ready.model),
            "model_bytes": sum(
                f.stat().st_size for f in ready.folder.iterdir() if f.suffix in (".safetensors", ".bin")
            ),
            "latency": latency(ready.model, ready.tokenizer, splits.validation["text"][:200], ready.max_length),
        }
    (run.model / "README.md").write_text(model_card(config, figures))
    write_json(run.metrics_file, figures)
    return figures


def fit(
    config: DictConfig, run: RunDirectory, method: Method, data: TextDataModule, checkpoint: Path | None
) -> dict[str, Any]:
    """Train, then put the weights of the best epoch into the student.

    Returns:
        ``training_seconds`` from the first to the last step, validation included, over all resumptions; and
        whether validation chose the weights or they are those of the last step.
    """
    curves = run.path / "metrics.csv"
    if checkpoint and curves.exists():
        curves.rename(run.path / f"metrics.before-{time.time_ns()}.csv")  # the logger would delete it
    trainer = build.trainer(config, run.path)
    run_fit(trainer, method, data, ckpt_path=checkpoint, weights_only=True)
    join_curves(curves, sorted(run.path.glob("metrics.before-*.csv")))
    best = run.checkpoints / "best.ckpt"
    if best.is_file():
        method.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))
    return {
        "training_seconds": round(timer.time_elapsed("train"), 2),
        "weights": "best on validation" if best.is_file() else "last step",
    }


def join_curves(path: Path, before: list[Path]) -> None:
    """Put the curves from before interruptions in front, each up to where the run went on."""
    tables = [pandas.read_csv(part) for part in [*before, path] if part.exists()]
    if before:
        whole = tables.pop()
        while tables:
            earlier = tables.pop()
            whole = pandas.concat([earlier[earlier["step"] < whole["step"].min()], whole])
        whole.to_csv(path, index=False)
    for part in before:
        part.unlink()


def evaluate(
    run: RunDirectory,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: Splits,
    answers: Answers,
    max_length: int,
) -> dict[str, Any]:
    """Figures of student and teacher on validation and test, and every prediction on disk.

    The only place of a run that reads the test split, once.
    """
    figures, tables = {}, []
    for name in ("validation", "test"):
        split = getattr(splits, name)
        encoded = build.encoded(split, tokenizer, max_length)
        rows = LengthBucketSampler(encoded.tokens.lengths, 256)
        logits = all_logits(student, (encoded[batch] for batch in rows), len(encoded))
        teacher = answers.of(split, name)
        figures[name] = {"rows": len(encoded), **label_metrics(logits, encoded.labels)}
        columns = {
            "split": [name] * len(encoded),
            "index": np.arange(len(encoded)),
            "line": np.asarray(split["line"]),
            "label": encoded.labels,
            "logits": list(logits),
        }
        if teacher is not None:
            figures[name] |= fidelity_metrics(logits, teacher)
            figures[name]["teacher"] = label_metrics(teacher, encoded.labels)
            columns["teacher_logits"] = list(np.asarray(teacher))
        tables.append(pyarrow.table(columns))
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), run.predictions_file)
    return figures


def model_card(config: DictConfig, figures: dict[str, Any]) -> str:
    """What a stranger who finds the model folder has to know."""
    test, parameters = figures["test"], figures["parameters"]
    teacher = f", taught by `{config.teacher.name_or_path}` (`loss={list(config.loss)}`)" if "agreement" in test else ""
    taught = teacher if build.method_class(config).reads_teacher else ""
    return f"""---
library_name: kd
pipeline_tag: text-classification
---
# {figures["student"]}, {figures["method"]}, {figures["data"]}

A `{figures["student"]}` text classifier with {parameters["total"]:,} parameters ({parameters["without_embeddings"]:,}
without embeddings), trained by `kd` with `method={figures["method"]}`{taught}, seed {figures["seed"]}.

| | validation | test |
|---|---|---|
| rows | {figures["validation"]["rows"]} | {test["rows"]} |
| accuracy | {figures["validation"]["accuracy"]:.4f} | {test["accuracy"]:.4f} |
| macro F1 | {figures["validation"]["macro_f1"]:.4f} | {test["macro_f1"]:.4f} |

Weights: {figures["weights"]}. The test rows were read once, afterwards.

```python
import kd  # registers the architecture
from transformers import pipeline

classify = pipeline("text-classification", model="path/to/this/folder")
```
"""


def row_checksums(splits: Splits) -> dict[str, str]:
    """What tells the rows of each split from others, texts and labels."""
    return {name: splits.counts["splits"][name]["sha256"] for name in ("train", "validation", "test")}


def facts(config: DictConfig, splits: Splits, teacher: ReadyTeacher | None) -> dict[str, Any]:
    """What this run stood on beyond the software."""
    return {
        "seed": config.seed,
        "threads": torch.get_num_threads(),
        "data": {
            "counts": splits.counts,
            "label_names": splits.label_names,
            **row_checksums(splits),
        },
        "teacher": {"name": teacher.name, "checksum": teacher.checksum, **teacher.facts} if teacher else None,
    }
