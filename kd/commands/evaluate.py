"""``kd evaluate MODEL``: a classifier measured on its run's rows, on files, in parts of them and on changed texts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kd.classifier import load
from kd.config import model_options
from kd.errors import KDError
from kd.evaluation import page, rows
from kd.evaluation.evaluation import Wanted, evaluation
from kd.evaluation.subject import Subject
from kd.measure.metrics import label_metrics
from kd.measure.significance import accuracy_interval
from kd.report import model_card
from kd.report.page import refuse_other, write
from kd.report.words import METRICS
from kd.run.directory import RunDirectory
from kd.storage import evaluation_record, records
from kd.storage.paths import refuse_link

OF_EVALUATION = ("on", "slice", "robustness", "pairs", "suite", "teacher", "bag", "run_directory", "out")
"""Options that ask for more than the short table."""


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="kd evaluate",
        description="Measure a classifier again. Without --on and the options below it, a short table of one split or "
        "file; with one of them, all figures, evaluation.json and a page in evaluation/.",
    )
    parser.add_argument("run", type=Path, help="finished run; with --on also a Hugging Face folder or an export")
    parser.add_argument("--split", choices=rows.SPLITS, help="which of the run's own rows (default: validation)")
    parser.add_argument("--file", type=Path, help="labelled CSV, TSV, JSON, Parquet or Arrow to measure on instead")
    parser.add_argument("--label", help="column with the labels (default: the run's own data.label)")
    model_options.add_options(parser, 256)
    parser.add_argument("--json", action="store_true", help="print JSON")
    more = parser.add_argument_group("on several data sets")
    more.add_argument("--on", nargs="+", default=[], metavar="DATA", help="labelled files, validation, test")
    more.add_argument("--run", dest="run_directory", type=Path, metavar="RUN", help="whose rows, if the model is none")
    more.add_argument("--teacher", type=Path, help="run, folder or export to compare with (default: the run's own)")
    more.add_argument("--bag", type=Path, help="bag of n-grams to compare with (default: one beside the run)")
    more.add_argument("--slice", nargs="+", default=[], metavar="COLUMN", help="columns of the files that make slices")
    more.add_argument("--robustness", action="store_true", help="change the texts of the first data")
    more.add_argument("--wordnet", type=Path, metavar="FOLDER", help="WordNet's folder dict, for synonyms")
    more.add_argument("--seed", type=int, default=0, help="of the random changes (default: 0)")
    more.add_argument("--pairs", type=Path, metavar="FILE", help="contrast pairs: rows with one id belong together")
    more.add_argument("--pair-column", default="pair", metavar="COLUMN", help="of the ids (default: pair)")
    more.add_argument("--suite", type=Path, metavar="FILE", help="tests in the terms of CheckList, as JSON lines")
    more.add_argument("--out", type=Path, help="folder for evaluation.json and the page (default: the run)")
    options = parser.parse_args(arguments)
    if options.wordnet and not options.robustness:
        raise KDError("--wordnet: expected --robustness with it, found none; add --robustness")
    return options


def main(arguments: list[str]) -> int:
    """Evaluate a classifier and print the figures."""
    options = parsed(arguments)
    model_options.begin("kd evaluate", options)
    if any(getattr(options, name) for name in OF_EVALUATION):
        return whole(options, arguments)
    return short(options)


def whole(options: argparse.Namespace, arguments: list[str]) -> int:
    """Measure everything that is asked for, print it, and write ``evaluation.json`` and the page."""
    place = options.out or options.run
    if not options.out:  # a stranger may have made the run
        for name in (evaluation_record.NAME, evaluation_record.PAGE):
            refuse_link(place, place / name)
    refuse_other(place / evaluation_record.PAGE)
    compared = (options.run_directory, options.teacher, options.bag)
    subject = Subject(options.run, *compared, options.batch_size, options.label_names)
    if not (options.out or subject.is_run):
        raise KDError(f"--out: expected a folder for the figures, as '{options.run}' is no run; give one")
    named = [str(options.file)] if options.file else [options.split] if options.split else []
    wanted = Wanted(
        on=options.on or named,
        **model_options.columns(options, subject.run, subject.classifier.text_column),
        encoding=options.encoding,
        slices=options.slice,
        robustness=options.robustness,
        wordnet=options.wordnet,
        pairs=options.pairs,
        pair_column=options.pair_column,
        suite=options.suite,
        seed=options.seed,
    )
    found = evaluation(subject, wanted)
    place.mkdir(parents=True, exist_ok=True)
    title = options.run.resolve().name
    write(page.document(found, title, arguments), place / evaluation_record.PAGE)
    with model_card.updated(None if options.out else subject.run):
        records.write(place / evaluation_record.NAME, found)
    if options.json:
        print(json.dumps(found))
        return 0
    page.show(found, title, Console())
    print(f"saved: {place / evaluation_record.NAME} and {place / evaluation_record.PAGE / 'index.html'}")
    return 0


def short(options: argparse.Namespace) -> int:
    """Print the table of a run's student on one split or file."""
    run = RunDirectory.finished(options.run, ("config.yaml", "environment.json", "model"))
    config, predictor = run.config(), load(options.run, options.label_names)
    if options.file:
        columns = model_options.columns(options, run)
        data = rows.of_file(options.file, columns["text"], columns["label"], predictor.label_names, options.encoding)
    else:
        data = rows.of_split(run, options.split or "validation")
    logits, labels = predictor.logits(data.texts, options.batch_size), data.labels
    figures = label_metrics(logits, labels)
    low, high = accuracy_interval(logits.argmax(axis=1) == labels)
    if options.json:
        print(json.dumps({"on": data.name, "rows": len(labels), **figures, "accuracy_interval": [low, high]}))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.title = f"{options.run} on {data.name}, {len(labels)} rows"
    shown = {"accuracy": "accuracy", "interval": "95 % interval", "macro_f1": "macro F1", "nll": "NLL", "ece": "ECE"}
    own = str(config.get("metric"))
    shown |= {own: METRICS[own]} if own in METRICS else {}
    for title in shown.values():
        table.add_column(title, justify="right")
    interval = f"{low:.4f} to {high:.4f}"
    table.add_row(*(interval if key == "interval" else f"{figures[key]:.4f}" for key in shown))
    Console().print(table)
    return 0
