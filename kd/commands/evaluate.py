"""``kd evaluate RUN``: a finished run's student measured again, on the run's own rows or on a labelled file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from kd.config import targets
from kd.config.check import rows_of_run
from kd.contract import IGNORED_LABEL
from kd.data.batching import labels_of
from kd.data.dialect import Reading
from kd.data.files import read_rows
from kd.data.labels import LabelReader
from kd.errors import KDError
from kd.measure.metrics import label_metrics
from kd.measure.significance import accuracy_interval
from kd.predictor import Predictor
from kd.report.words import METRICS
from kd.run.directory import RunDirectory


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="kd evaluate", description="Measure a finished run's student again.")
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument(
        "--split",
        choices=["validation", "test"],
        default="validation",
        help="which of the run's own rows (default: validation)",
    )
    parser.add_argument("--file", type=Path, help="labelled CSV, TSV, JSON, Parquet or Arrow to measure on instead")
    parser.add_argument("--text", help="column with the texts (default: the run's own data.text)")
    parser.add_argument("--label", help="column with the labels (default: the run's own data.label)")
    parser.add_argument("--encoding", default="utf-8", help="of --file (default: utf-8)")
    parser.add_argument("--batch-size", type=int, default=256, help="rows at a time (default: 256)")
    parser.add_argument("--modules", nargs="+", default=[], help="your own modules that the run's data may name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if options.batch_size < 1:
        raise KDError(f"--batch-size: expected at least 1, got {options.batch_size}")
    return options


def main(arguments: list[str]) -> int:
    """Evaluate a run's student and print the figures."""
    options = parsed(arguments)
    targets.trust(options.modules)  # not the modules that the run lists, because a stranger may have made it
    run = RunDirectory.finished(options.run, ("config.yaml", "environment.json", "model"))
    config, predictor = run.config(), Predictor.load(options.run)
    if options.file:
        columns = options.text or config["data"]["text"], options.label or config["data"]["label"]
        texts, labels = labelled_file(options.file, *columns, predictor.label_names, options.encoding)
        name = options.file.name
    else:
        name = options.split
        split = getattr(rows_of_run(run, name), name)
        texts, labels = split["text"], labels_of(split)
        if name == "test":
            run.record_test_read(command="kd evaluate")  # kd report counts how often the test rows were read
    logits = predictor.logits(texts, options.batch_size)
    figures = label_metrics(logits, labels)
    low, high = accuracy_interval(logits.argmax(axis=1) == labels)
    if options.json:
        print(json.dumps({"on": name, "rows": len(labels), **figures, "accuracy_interval": [low, high]}))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"{options.run} on {name}, {len(labels)} rows")
    shown = {"accuracy": "accuracy", "interval": "95 % interval", "macro_f1": "macro F1", "nll": "NLL", "ece": "ECE"}
    own = str(config.get("metric"))
    shown |= {own: METRICS[own]} if own in METRICS else {}
    for title in shown.values():
        table.add_column(title, justify="right")
    interval = f"{low:.4f} to {high:.4f}"
    table.add_row(*(interval if key == "interval" else f"{figures[key]:.4f}" for key in shown))
    Console().print(table)
    return 0


def labelled_file(
    path: Path, text: str, label: str, label_names: list[str], encoding: str
) -> tuple[list[str], np.ndarray]:
    """Read the texts and label ids of the rows that have both.

    Raises:
        KDError: a column is missing, a label is not one of the names, or no row has both.
    """
    rows = read_rows(path, Reading(encoding, wanted=(text, label)))
    rows.require(text, "--text")
    rows.require(label, "--label")
    reader = LabelReader(label_names)
    texts, codes, unusable = [], [], []
    for line, row in rows:
        number, content = reader.read(row.get(label), path.name, line), row.get(text)
        if isinstance(content, str) and content.strip("\0 \t\r\n") and "\0" not in content and number != IGNORED_LABEL:
            texts.append(content)
            codes.append(number)
        else:
            unusable.append(line)
    left_out = rows.malformed.lines + unusable
    if left_out:
        print(
            f"kd evaluate: {rows.malformed.count + len(unusable)} rows left out (no text, no label or malformed), "
            f"lines {', '.join(map(str, left_out[:20]))}",
            file=sys.stderr,
        )
    if not texts:
        raise KDError(f"expected rows with a text and a label in {path}, found none; check --text and --label")
    _, ids = reader.finish()
    for warning in reader.warnings:
        print(f"kd evaluate: {warning}", file=sys.stderr)
    return texts, ids[codes]
