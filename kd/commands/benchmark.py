"""``kd benchmark RUN...``: size, speed and accuracy of students and their teacher on this machine, in all forms."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from itertools import cycle, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kd.benchmark import timing
from kd.benchmark.forms import FORMS, Form, forms_of, size_of
from kd.benchmark.memory import resident
from kd.config import targets
from kd.config.check import rows_of_run
from kd.data.batching import labels_of
from kd.errors import KDError
from kd.measure.inference import torch_threads
from kd.predictor import Predictor
from kd.report import drawing
from kd.report.drawing import SERIES
from kd.report.figures import pareto
from kd.run.directory import RunDirectory
from kd.run.environment import processor
from kd.run.own_teacher import own_teacher
from kd.storage.files import write_json

log = logging.getLogger(__name__)

TEXTS = 200
"""Texts that the latency is measured on."""
BATCHES = (32, 256)
MARKS = dict(zip(FORMS, "osD^", strict=True))
"""The mark of each form in the plot."""


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="kd benchmark", description="Measure finished runs and their teacher on this machine, in turns."
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run directories with the same data")
    parser.add_argument(
        "--forms", default="eager,onnx,int8", help=f"some of {','.join(FORMS)} (default: all but compiled)"
    )
    parser.add_argument("--teacher", default="own", help="own, none, or a Hugging Face folder (default: own)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a form (default: 1)")
    parser.add_argument("--turns", type=int, default=100, help="largest number of turns (default: 100)")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for the latencies (default: 60)")
    parser.add_argument(
        "--price", type=float, help="price of an hour of this machine, to print that of a million texts"
    )
    parser.add_argument("--out", type=Path, help="folder for benchmark.json and the plot (default: the first run)")
    parser.add_argument("--modules", nargs="+", default=[], help="your own modules that the run's data may name")
    options = parser.parse_args(arguments)
    options.forms = list(dict.fromkeys(options.forms.split(",")))
    if unknown := [form for form in options.forms if form not in FORMS]:
        raise KDError(f"--forms: expected some of {', '.join(FORMS)}, got '{unknown[0]}'; correct it")
    for name in ("threads", "turns", "seconds", "price"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise KDError(f"--{name}: expected a number above 0, got {value}")
    return options


def main(arguments: list[str]) -> int:
    """Measure, print a table, and write it with a plot."""
    options = parsed(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="kd benchmark: %(message)s")
    targets.trust(options.modules)  # not the modules that the run lists, because a stranger may have made it
    runs = [
        RunDirectory.finished(path, ("config.yaml", "environment.json", "metrics.json", "model"))
        for path in options.runs
    ]
    texts, labels = validation_rows(runs)
    with torch_threads(options.threads), tempfile.TemporaryDirectory() as place:
        forms, sizes = all_forms(options, runs, texts, Path(place))
        times = timing.latencies(forms, texts[:TEXTS], options.turns, options.seconds)
        memory = [memory_of(form, texts[: BATCHES[0]], options.threads) for form in forms]
        rates = {batch: timing.throughputs(forms, texts, batch) for batch in BATCHES}
        rows = [
            {
                **{"name": form.name, "form": form.form, "bytes": form.size, "resident": memory[number]},
                **sizes[form.name],
                **timing.summary(own, times[0]),
                **{f"rows_a_second_{batch}": rates[batch][number] for batch in BATCHES},
                "accuracy": accuracy(form, texts, labels),
            }
            for number, (form, own) in enumerate(zip(forms, times, strict=True))
        ]
    for row in rows:
        if options.price:
            row["price_of_a_million"] = options.price * 1e6 / (3600 * row["rows_a_second_32"])
    for number in pareto([(row["p50_ms"], row["accuracy"]) for row in rows]):
        rows[number]["on_front"] = True
    content = {
        "machine": processor(),
        "threads": options.threads,
        "warm_up": timing.WARM_UP,
        "turns": len(times[0]),
        "validation_rows": len(texts),
        "rows": rows,
    }
    out = options.out or options.runs[0]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "benchmark.json", content)
    plot(rows, out)
    show(content, Console())
    print(f"the figures are in {out / 'benchmark.json'}, the plot is {out / 'benchmark.png'}")
    return 0


def validation_rows(runs: Sequence[RunDirectory]) -> tuple[list[str], np.ndarray]:
    """Return the texts and labels of the validation rows that all runs have.

    Raises:
        KDError: the runs have other rows, or these are no longer there.
    """
    wanted = runs[0].environment()["data"]["validation"]
    if other := [run.path for run in runs if run.environment()["data"]["validation"] != wanted]:
        raise KDError(f"expected runs with the same data, found others in '{other[0]}'; measure them apart")
    rows = rows_of_run(runs[0], "validation").validation
    return list(rows["text"]), labels_of(rows)


def all_forms(
    options: argparse.Namespace, runs: Sequence[RunDirectory], texts: Sequence[str], place: Path
) -> tuple[list[Form], dict[str, dict[str, Any]]]:
    """Return all forms, those of the teacher first, and the size of each model by its name."""
    paths = {run.path.resolve().name: run.path for run in runs}
    if len(paths) < len(runs):  # then their parents tell them apart
        paths = {"/".join(run.path.resolve().parts[-2:]): run.path for run in runs}
    if options.teacher == "own" and runs[0].environment().get("teacher") is None:
        log.warning("'%s' was trained without a teacher; it is compared with nothing but the other runs", runs[0].path)
    elif options.teacher != "none":
        given = own_teacher(runs[0]) if options.teacher == "own" else Path(options.teacher)
        paths = {"teacher": given} | paths
    labels = runs[0].environment()["data"]["label_names"]
    forms, sizes = list[Form](), dict[str, dict[str, Any]]()
    for name, path in paths.items():
        predictor = Predictor.load(path)
        sizes[name] = size_of(predictor, texts[:TEXTS])
        forms += forms_of(name, predictor, path, options.forms, texts, place, labels)
    return forms, sizes


def memory_of(form: Form, texts: Sequence[str], threads: int) -> int | None:
    """Return the bytes of memory of a process that answers; None if it cannot be measured, with a warning."""
    try:
        return None if form.form == "compiled" else resident(form.path, texts, threads)
    except KDError as error:  # the latencies, which are measured by now, are not thrown away
        log.warning("%s", error)
        return None


def accuracy(form: Form, texts: Sequence[str], labels: np.ndarray) -> float:
    """Return the share of the texts whose label is right."""
    found = [form.answer(texts[start : start + 64]).argmax(axis=1) for start in range(0, len(texts), 64)]
    return float((np.concatenate(found) == labels).mean())


def show(content: dict[str, Any], console: Console) -> None:
    """Print the figures in three tables, each of at most 80 columns."""
    rows = content["rows"]
    sizes = ("parameters", "without_embeddings", "multiply_adds", "mean_tokens")
    models = new_table("model", "parameters", "without\nembeddings", "multiply-adds", "at tokens")
    speed = new_table("model and form", "p50 ms", "p95", "p99", "model\nalone", "times as fast")
    rates = new_table("model and form", "MB", "memory", *(f"rows/s\nby {batch}" for batch in BATCHES), "accuracy\n%")
    if "price_of_a_million" in rows[0]:
        rates.add_column("price/M", justify="right")
    for name, group in groupby(rows, key=itemgetter("name")):
        speed.add_row(name, style="bold")
        rates.add_row(name, style="bold")
        for row in group:
            form = f"{'*' if row.get('on_front') else ' '} {row['form']}"
            ratio = f"{row['ratio']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
            speed.add_row(form, *(f"{row[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms", "model_ms")), ratio)
            memory = f"{row['resident'] / 1e6:.0f}" if row["resident"] else "-"
            each = [f"{row[f'rows_a_second_{batch}']:,.0f}" for batch in BATCHES]
            price = [f"{row['price_of_a_million']:.4f}"] if "price_of_a_million" in row else []
            rates.add_row(form, f"{row['bytes'] / 1e6:.2f}", memory, *each, f"{100 * row['accuracy']:.1f}", *price)
        models.add_row(name, *(f"{row[key]:,}" for key in sizes))
    for table in (models, speed, rates):
        console.print(table)
        console.print()
    print(
        f"One text at a time with the tokenizer ('model alone': without it), {content['turns']} turns after "
        f"{content['warm_up']} warm-up calls, {content['threads']} thread(s), {content['machine']}.\n"
        f"'times as fast': as the first row, with the 95 % interval of the median. Accuracy on "
        f"{content['validation_rows']} validation rows.\n"
        f"MB: of the model's file. memory: MB of a separate process, with the libraries, after {BATCHES[0]} "
        "texts.\n*: no other is both faster and as accurate."
    )


def new_table(first: str, *numbers: str) -> Table:
    """Return a table without rows, with a column of names and columns of numbers."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column(first, no_wrap=True)
    for title in numbers:
        found.add_column(title, justify="right")
    return found


def plot(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Draw accuracy against latency, and write the plot."""

    def draw(axes: Any) -> None:
        for name, colour in zip(dict.fromkeys(row["name"] for row in rows), cycle(SERIES), strict=False):
            own = [row for row in rows if row["name"] == name]
            axes.plot(*points(own), color=colour, linewidth=0.8, label=name)
            for row in own:
                axes.plot(*points([row]), color=colour, marker=MARKS[row["form"]])
        for form in dict.fromkeys(row["form"] for row in rows):
            axes.plot([], [], color=drawing.MUTED, marker=MARKS[form], linewidth=0, label=form)
        front = sorted((row for row in rows if row.get("on_front")), key=lambda row: row["p50_ms"])
        axes.plot(*points(front), color=drawing.MUTED, linewidth=1, linestyle="--", label="Pareto front", zorder=1)
        axes.set_xscale("log")
        drawing.plain_log_ticks(axes)
        axes.set(xlabel="median latency of one text with the tokenizer, ms", ylabel="validation accuracy, %")
        drawing.legend_below(axes, columns=3)

    caption = "Each point is a form of a model."
    figure = drawing.Figure("benchmark", "Accuracy and latency", caption, (), (), draw, drawing.HEIGHT + 0.3)
    (out / "benchmark.png").write_bytes(drawing.drawn(figure)[0])


def points(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Return latency and accuracy of rows, for a plot."""
    return [row["p50_ms"] for row in rows], [100 * row["accuracy"] for row in rows]
