"""``kd explain RUN TEXT...``: which words made the student answer so, beside its teacher; for texts or a data set."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.special import softmax

from kd.classifier import load
from kd.config import model_options
from kd.config.check import rows_of_run
from kd.data.dialect import Reading
from kd.data.files import read_rows
from kd.data.splits import unusable
from kd.errors import KDError
from kd.explanation import gradients, neighbours, page
from kd.explanation.attribution import Attribution, Model, occlusion, words_of
from kd.explanation.comparison import compared
from kd.report import tables
from kd.report.model_card import updated
from kd.report.page import refuse_other, write
from kd.report.terminal import printed
from kd.run.directory import RunDirectory
from kd.storage import explanation_record, records
from kd.storage.paths import refuse_link

log = logging.getLogger(__name__)
READ = ("config.yaml", "environment.json", "model")
BAR = 10
"""Letters of the longest bar."""


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="kd explain",
        description="Show which words made the student answer so, beside its teacher. Writes explanation.json and the "
        "page explanation/index.html into the run.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="finished run; or a Hugging Face folder or an export")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text to explain")
    parser.add_argument("--on", metavar="FILE", help="compare over the texts of a file, or over the run's: validation")
    parser.add_argument("--rows", type=int, default=200, help="largest number of texts of --on (default: 200)")
    parser.add_argument("--teacher", type=Path, help="run, Hugging Face folder or export (default: the run's own)")
    parser.add_argument("--against", type=Path, metavar="RUN", help="a further model, such as the student alone")
    parser.add_argument(
        "--method",
        choices=list(page.METHODS),
        help="integrated gradients, gradient times input, or leaving a word out (default: ig if all models are "
        "networks, otherwise occlusion)",
    )
    parser.add_argument("--steps", type=int, default=32, help="points of integrated gradients (default: 32)")
    parser.add_argument("--neighbours", type=int, default=0, metavar="N", help="show the N nearest training rows")
    parser.add_argument("--out", type=Path, help="folder for JSON and page (default: the run, and its explanation/)")
    model_options.add_options(parser)
    options = parser.parse_intermixed_args(arguments)
    for name, least in (("rows", 2), ("steps", 1), ("neighbours", 0)):
        if (value := getattr(options, name)) < least:
            raise KDError(f"--{name.replace('_', '-')}: expected at least {least}, got {value}")
    if not options.texts and not options.on:
        raise KDError("expected texts, or --on FILE or --on validation, got neither; give a text in quotes")
    for text in options.texts:
        if unusable(text):
            raise KDError(f"expected a text with words, got {text!r}; give another")
    return options


def main(arguments: list[str]) -> int:
    """Explain texts, a data set, or both; print, and write JSON and the page."""
    options = parsed(arguments)
    options.command = shlex.join(["kd", "explain", *arguments])
    model_options.begin("kd explain", options)
    run = RunDirectory.of_model(options.run, READ)
    if run is None and options.on == "validation":
        raise KDError(f"--on validation: expected a run, found none in '{options.run}'; give a file with --on")
    if run is None and options.neighbours:
        raise KDError(f"--neighbours: expected a run, found none in '{options.run}'; its training rows are not known")
    own = run if run and not options.out and run.path.resolve() == options.run.resolve() else None
    place = own.path / explanation_record.PAGE if own else options.out
    if own:
        for name in (explanation_record.NAME, explanation_record.PAGE):
            refuse_link(own.path, own.path / name)
    if place:
        refuse_other(place)  # before the work
    models, paths = models_of(options, run)
    method = method_of(models, options.method)
    made = {"command": options.command, "method": method, "names": [model.name for model in models], "paths": paths}
    console = Console()
    record: dict[str, Any] = {"format": records.FORMAT, "texts": None, "data": None}
    kept = (own.path if own else place or Path()) / explanation_record.NAME
    with suppress(KDError):  # a text does not take away what was found over a data set; a damaged file is replaced
        record |= explanation_record.read(kept.parent) if place else {}
    if options.texts:
        rows = explained(models, options.texts, method, options)
        if options.neighbours:
            add_neighbours(rows, models, run, options.neighbours)
        record["texts"] = {**made, "rows": rows}
        show_texts(console, record["texts"])
    if options.on:
        source, texts = texts_on(options, run, models[0])
        labels = models[0].logits(texts).argmax(axis=1)
        found = [attributions(model, texts, labels, method, options.steps) for model in models]
        record["data"] = {**made, "source": source, **compared(models, found, texts, labels)}
        show_data(console, record["data"])
    if place:
        index = write(page.document(record, str(options.run)), place)
        with updated(own):
            records.write(kept, record)
        print(f"saved: {kept} and {index}", file=sys.stderr)
    return 0


def models_of(options: argparse.Namespace, run: RunDirectory | None) -> tuple[list[Model], list[str]]:
    """Load the student, its teacher and the other run, so far as they are there; return them and their paths."""
    student = load(options.run, options.label_names)
    found = {"student": (student, options.run)}
    teacher = options.teacher or model_options.teacher_of(run, options.run, log.warning)
    if teacher:
        found["teacher"] = (load(teacher), teacher)
    if options.against:
        found["other"] = (load(options.against), options.against)
    models = [Model(name, each, student.label_names, options.batch_size) for name, (each, _) in found.items()]
    return models, [str(path) for _, path in found.values()]


def method_of(models: Sequence[Model], wanted: str | None) -> str:
    """Return the method that is wanted, or the best for all models: only equal methods can be compared."""
    obstacles = [(model.name, reason) for model in models if (reason := gradients.obstacle(model))]
    if wanted in (None, "occlusion") or not obstacles:
        return wanted or ("occlusion" if obstacles else "ig")
    name, reason = obstacles[0]
    raise KDError(f"--method {wanted}: expected networks, but for the {name} {reason}; use --method occlusion")


def attributions(model: Model, texts: Sequence[str], labels: np.ndarray, method: str, steps: int) -> list[Attribution]:
    """Return the influence of each word of each text."""
    if method == "occlusion":
        return occlusion(model, texts, labels)
    return gradients.by_gradients(model, texts, labels, method, steps)


def explained(
    models: Sequence[Model], texts: Sequence[str], method: str, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Explain single texts for the student's label; return what `kd.storage.explanation_record.Text` has."""
    logits = [model.logits(texts) for model in models]
    labels = logits[0].argmax(axis=1)
    found = [attributions(model, texts, labels, method, options.steps) for model in models]
    return [
        {
            "text": text,
            "words": [text[start:end] for start, end in words_of(text)],
            "label": models[0].label_names[labels[row]],
            "models": [
                {
                    "answer": model.label_names[own[row].argmax()],
                    "probability": float(softmax(own[row]).max()),
                    "values": each[row].values.tolist(),
                    "change": each[row].change,
                }
                for model, own, each in zip(models, logits, found, strict=True)
            ],
            "neighbours": [],
        }
        for row, text in enumerate(texts)
    ]


def add_neighbours(rows: list[dict[str, Any]], models: Sequence[Model], run: RunDirectory | None, count: int) -> None:
    """Add the nearest training rows to each text, with the label that the teacher gives them, if there is one."""
    if run is None:
        return
    found = neighbours.nearest(models[0], [row["text"] for row in rows], neighbours.training_rows(run), count)
    teacher = next((model for model in models if model.name == "teacher"), None)
    for row, near in zip(rows, found, strict=True):
        answers = teacher.logits([each["text"] for each in near]).argmax(axis=1) if teacher else [None] * len(near)
        for each, answer in zip(near, answers, strict=True):
            each["teacher"] = None if answer is None else models[0].label_names[answer]
        row["neighbours"] = near


def texts_on(options: argparse.Namespace, run: RunDirectory | None, student: Model) -> tuple[str, list[str]]:
    """Return the name and the texts of the data set; of many texts, a random part that is always the same.

    Raises:
        KDError: the file cannot be read, or has no texts.
    """
    if run and options.on == "validation":
        name, texts = "validation", list(rows_of_run(run, "validation").validation["text"])
    else:
        column, path = model_options.columns(options, run, student.classifier.text_column)["text"], Path(options.on)
        rows = read_rows(path, Reading(options.encoding, wanted=(column,)))
        rows.require(column, "--text")
        name, texts = path.name, [row[column] for _, row in rows if not unusable(row.get(column))]
    if not texts:
        raise KDError(f"expected texts in {options.on}, found none; give another file")
    chosen = np.sort(np.random.default_rng(0).permutation(len(texts))[: options.rows])
    return name, [texts[row] for row in chosen]


def show_texts(console: Console, part: Mapping[str, Any]) -> None:
    """Print the words of each text with their influence on each model: signed numbers and bars."""
    for row in part["rows"]:
        for line in page.said(part["names"], row):
            console.print(Text(line))
        shown = page.most_influential(row)
        console.print(Text(f"Influence on {tables.plain(row['label'])}, by {page.METHODS[part['method']]}:"))
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("word", max_width=24)
        scales = [max(map(abs, one["values"]), default=0) or 1.0 for one in row["models"]]
        for name in part["names"]:
            table.add_column(name, justify="right")
            table.add_column("", width=BAR)
        for word in shown:
            cells = [Text(tables.plain(row["words"][word]))]
            for one, scale in zip(row["models"], scales, strict=True):
                cells += bar(one["values"][word], scale)
            table.add_row(*cells)
        console.print(table)
        if len(shown) < len(row["words"]):
            console.print(f"{len(shown)} of {len(row['words'])} words, those with the most influence")
        if row["neighbours"]:
            console.print(printed(page.of_neighbours("neighbours", row["neighbours"])))
        console.print()


def bar(value: float, scale: float) -> list[Text]:
    """Return a signed number and a bar: blue for the label, red against it."""
    colour = "blue" if value > 0 else "red"
    marks = ("+" if value > 0 else "-") * round(BAR * abs(value) / scale)
    return [Text(f"{round(value, 2) + 0.0:+.2f}", style=colour), Text(marks, style=colour)]


def show_data(console: Console, part: Mapping[str, Any]) -> None:
    """Print what was found over a data set."""
    section = page.of_data(part)
    for line in section.summary:
        console.print(Text(line))
    for block in section.blocks:
        console.print(Text(f"\n{block.title}", style="bold"))
        for line in block.text:
            console.print(Text(line))
        for table in block.tables:
            console.print(printed(table))
