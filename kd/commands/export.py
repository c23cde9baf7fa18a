"""``kd export RUN``: a student in a form that runs without kd's classes, compared with the original."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kd.cascade.rows import of_file
from kd.config import targets
from kd.config.check import rows_of_run
from kd.contract import IGNORED_LABEL
from kd.data.batching import labels_of
from kd.errors import KDError
from kd.export import folder, write
from kd.export.checks import Rows
from kd.predictor import Predictor
from kd.run import predictions
from kd.run.directory import RunDirectory
from kd.runtime.silence import quiet
from kd.storage.paths import refuse_link

MOST = 1_000
"""Texts that an export is compared on."""


def main(arguments: list[str]) -> int:
    """Export a student and print what changed."""
    kinds = ", ".join(folder.MODELS)
    parser = argparse.ArgumentParser(
        prog="kd export", description="Write a finished run's student in a form that runs without kd's classes."
    )
    parser.add_argument("run", type=Path, help="run directory, or a Hugging Face folder of a classifier")
    parser.add_argument("--to", default="onnx", help=f"kinds, joined by commas: {kinds} (default: onnx)")
    parser.add_argument("--out", type=Path, help="parent of the new folders (default: RUN/exports)")
    parser.add_argument("--file", type=Path, help="texts for the check (default: validation and training rows)")
    parser.add_argument("--text", help="column of --file with the texts (default: the run's own data.text)")
    parser.add_argument("--label", help="column of --file with labels, if any (default: the run's own data.label)")
    parser.add_argument("--force", action="store_true", help="keep an export even if over 0.5 %% of the labels change")
    parser.add_argument("--modules", nargs="+", default=[], help="your own modules that the run's data may name")
    options = parser.parse_args(arguments)
    quiet()
    chosen = list(dict.fromkeys(options.to.split(",")))
    if unknown := [kind for kind in chosen if kind not in folder.MODELS]:
        raise KDError(f"--to: expected some of {kinds}, got '{unknown[0]}'; correct it")
    targets.trust(options.modules)  # not the modules that the run lists, because a stranger may have made it
    if folder.is_export(options.run):
        raise KDError(f"'{options.run}' is an export already; give the run that it was made from")
    predictor = Predictor.load(options.run)
    rows, calibration, source = given(options, predictor)
    place = options.out or options.run / "exports"
    if not options.out:
        refuse_link(options.run, place)
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=f"{options.run}, checked on {len(rows.texts)} texts"
    )
    for title in ("kind", "MB", "largest difference", "flips", "accuracy %", "agreement %"):
        table.add_column(title, justify="left" if title == "kind" else "right")
    try:
        for target, about in write.exports(predictor, chosen, place, rows, calibration, source, options.force):
            table.add_row(*cells(target, about))
    finally:
        if table.row_count:  # those before one that is refused are written, too
            Console().print(table)
    print(f"the exports are in {place}; classify with one:\n  kd predict {place / chosen[0]} 'a text'")
    if "web" in chosen:
        print(f"look at the page: python -m http.server --directory {place / 'web'}")
    return 0


def given(options: argparse.Namespace, predictor: Predictor) -> tuple[Rows, list[str], dict[str, Any]]:
    """Return the rows of the check, texts for the calibration, and what is known about the model."""
    if not RunDirectory.is_one(options.run):
        if not options.file:
            raise KDError(f"'{options.run}' is no run, so it names no texts for the check; give some with --file")
        return *rows_of(options, predictor, options.label or "label"), {"model": options.run.name}
    run = RunDirectory.finished(options.run, ("config.yaml", "environment.json", "metrics.json", "predictions.parquet"))
    metrics, environment = run.metrics(), run.environment()
    source = {key: metrics.get(key) for key in ("student", "method", "data", "teacher", "seed")}
    source["identity"] = run.status().get("identity")
    if options.file:
        return *rows_of(options, predictor, options.label or run.config()["data"].get("label") or "label"), source
    splits = rows_of_run(run, "validation")
    taught = predictions.of_run(run, metrics, environment, {})["validation"].teacher
    train = list(splits.train["text"][:MOST])
    texts, labels = list(splits.validation["text"]), labels_of(splits.validation)
    teacher = np.full(len(texts), IGNORED_LABEL) if taught is None else taught.predicted
    more = train[: max(0, MOST - len(texts))]  # their labels would make the accuracy look better than it is
    unknown = np.full(len(more), IGNORED_LABEL)
    rows = Rows((texts + more)[:MOST], *(np.concatenate([each, unknown])[:MOST] for each in (labels, teacher)))
    return rows, train, source


def rows_of(options: argparse.Namespace, predictor: Predictor, label: str) -> tuple[Rows, list[str]]:
    """Return the rows of --file, with their labels where it has them, and its texts for the calibration."""
    text = options.text or predictor.text_column
    try:
        found = of_file(options.file, text, label, predictor.label_names, "utf-8", [])
    except KDError as error:
        if options.label:
            raise
        found = of_file(options.file, text, None, predictor.label_names, "utf-8", [])  # fails again if it is the texts
        print(f"kd export: the labels of {options.file} are ignored: {error}", file=sys.stderr)
    texts = found.texts[:MOST]
    return Rows(texts, found.labels[:MOST]), texts


def cells(target: Path, about: dict[str, Any]) -> list[str]:
    """Return a row of the table: what an export changes."""
    check, model = about["check"], target / folder.MODELS[about["kind"]]
    size = sum(path.stat().st_size for path in (target.iterdir() if about["kind"] == "web" else [model]))
    pairs = ["-", "-"]
    for number, name in enumerate(("accuracy", "agreement")):
        if f"{name}_before" in check:
            pairs[number] = f"{100 * check[f'{name}_before']:.1f} -> {100 * check[f'{name}_after']:.1f}"
    kind = f"{about['kind']} ({about['scheme']})" if "scheme" in about else about["kind"]
    return [kind, f"{size / 1e6:.2f}", f"{check['largest_difference']:.1e}", f"{check['flips']:.0f}", *pairs]
