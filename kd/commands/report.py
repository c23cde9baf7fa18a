"""``kd report DIR...``: one table of finished runs, read from disk without torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import yaml
from rich.console import Console
from rich.table import Table

from kd.errors import KDError
from kd.run import RunDirectory
from kd.statistics import PairedDifference, accuracy_interval, compare


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="kd report", description="Print one table of finished runs.")
    parser.add_argument("folders", nargs="+", type=Path, help="run directories, or folders that hold them")
    options = parser.parse_args(arguments)
    report(find_runs(options.folders), Console(soft_wrap=False))
    return 0


METHOD_WORDS = {"supervised": "alone", "distillation": "distilled"}


@dataclass(frozen=True)
class Run:
    """A finished run as the table reads it."""

    directory: RunDirectory

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return self.directory.metrics()

    @cached_property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self.directory.config_file.read_text())

    @cached_property
    def test(self) -> dict[str, np.ndarray]:
        """The columns of the test rows of ``predictions.parquet``."""
        table = pyarrow.parquet.read_table(self.directory.predictions_file, filters=[("split", "=", "test")])
        columns = {name: table[name].to_pylist() for name in table.column_names if name != "split"}
        return {name: np.array(column) for name, column in columns.items()}

    @property
    def correct(self) -> np.ndarray:
        return self.test["logits"].argmax(axis=1) == self.test["label"]

    @property
    def teacher_correct(self) -> np.ndarray:
        return self.test["teacher_logits"].argmax(axis=1) == self.test["label"]

    @property
    def rows_key(self) -> bytes:
        """Equal for runs that were tested on the same rows."""
        return self.test["line"].tobytes() + self.test["label"].tobytes()

    @property
    def start(self) -> str:
        return self.metrics["embeddings"]

    @property
    def matched(self) -> tuple:
        """What two runs must share for their difference to be the method's."""
        config = self.config
        parts = (config["student"], config["tokenizer"], config["data"], config["optim"], config["trainer"])
        return (*map(_frozen, parts), self.metrics["seed"])


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """The finished runs in or below the folders.

    Raises:
        KDError: a folder that is not there, or no finished run in any.
    """
    found, unfinished = [], 0
    for folder in folders:
        if not folder.is_dir():
            raise KDError(f"expected a folder with runs, found nothing at '{folder}'; give what kd train printed")
        for status in sorted(folder.glob("**/status.json")):
            directory = RunDirectory(status.parent)
            if "previous" in status.parent.parts:
                continue
            if directory.status()["state"] == "done":
                found.append(Run(directory))
            else:
                unfinished += 1
    if not found:
        raise KDError(
            f"expected finished runs in {', '.join(map(str, folders))}, found none ({unfinished} not finished); "
            "run kd train first"
        )
    if unfinished:
        Console(stderr=True).print(f"{unfinished} runs that are not finished are left out")
    return found


def report(runs: list[Run], console: Console) -> None:
    """Print the table and what it says."""
    if len({run.rows_key for run in runs}) > 1:
        raise KDError(
            "expected runs that were tested on the same rows, found several test sets; report them one by one"
        )
    runs = sorted(
        runs,
        key=lambda run: (
            run.metrics["student"],
            run.start,
            run.metrics["method"] != "supervised",
            run.metrics["seed"],
        ),
    )
    first = runs[0].metrics
    named = {name: ", ".join(sorted({str(run.metrics[name]) for run in runs})) for name in ("student", "data")}
    console.print(f"student {named['student']} on {named['data']}", markup=False, highlight=False)
    console.print(table(runs))
    notes = [
        f"{first['test']['rows']} test rows, read once, after validation had chosen the epoch.",
        "M: million parameters in all (without embeddings). MB: model on disk.",
        f"p50: one text on the CPU, {first['latency']['threads']} threads, tokenizer apart.",
        f"Padding: {first['padding_share']:.1%} of the training tokens.",
    ]
    if "teacher_cost" in first:
        cost = first["teacher_cost"]
        notes.insert(1, f"agree: % of rows with the label that the teacher, {short(cost['name'])}, gives.")
    for note in notes:
        console.print(note, markup=False, highlight=False)
    for line in findings(runs):
        console.print("* " + line, markup=False, highlight=False)


def table(runs: list[Run]) -> Table:
    """A row for the teacher and one for each run, 80 columns wide."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("model", no_wrap=True)
    for name in ("test % [95 %]", "agree", "M (no emb)", "MB", "p50 ms", "train s"):
        table.add_column(name, justify="right", no_wrap=True)
    teacher = next((run for run in runs if "teacher_cost" in run.metrics), None)
    if teacher:
        table.add_row("teacher", *cells(teacher.teacher_correct, None, teacher.metrics["teacher_cost"]))
    for run in runs:
        agreement = run.metrics["test"].get("agreement")
        table.add_row(label(run, runs), *cells(run.correct, agreement, run.metrics))
    return table


def label(run: Run, runs: list[Run]) -> str:
    """The method, and whatever else tells this run from the others."""
    words = [METHOD_WORDS.get(run.metrics["method"], run.metrics["method"])]
    for name in ("student", "embeddings", "tokenizer", "seed"):
        if len({other.metrics[name] for other in runs}) > 1:
            words.append(f"seed {run.metrics[name]}" if name == "seed" else str(run.metrics[name]))
    return " ".join(words)


def cells(correct: np.ndarray, agreement: float | None, cost: dict[str, Any]) -> list[str]:
    """The row of a model, from the test rows it has right and what it costs."""
    low, high = accuracy_interval(correct)
    parameters = cost["parameters"]
    seconds = cost["training_seconds"]
    return [
        f"{100 * correct.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        "" if agreement is None else f"{100 * agreement:.1f}",
        f"{millions(parameters['total'])} ({millions(parameters['without_embeddings'])})",
        f"{cost['model_bytes'] / 1e6:.1f}",
        f"{cost['latency']['p50_ms']:.2f}",
        "" if seconds is None else f"{seconds:.0f}",
    ]


def findings(runs: list[Run]) -> list[str]:
    """What the start brought and what distillation brought, each against the run that differs in it alone."""
    lines = []
    for run in runs:
        for other in runs:
            if run.matched != other.matched:
                continue
            same_method = _frozen(run.config["method"]) == _frozen(other.config["method"])
            if same_method and run.start != "random" and other.start == "random":
                title = f"start from the teacher's word table ({label(run, runs)} against {other.start})"
                lines.append(sentence(title, compare(run.correct, other.correct)))
            if run.start == other.start and run.metrics["method"] != "supervised" == other.metrics["method"]:
                title = f"{run.metrics['method']} ({label(run, runs)} against alone)"
                lines.append(sentence(title, compare(run.correct, other.correct)))
    return lines


def sentence(title: str, paired: PairedDifference) -> str:
    """The verdict on one comparison, in words and figures."""
    numbers = (
        f"{100 * paired.difference:+.1f} points [{100 * paired.low:+.1f}, {100 * paired.high:+.1f}], "
        f"McNemar p = {paired.p_value:.2g}"
    )
    if not paired.decided:
        return f"{title}: no difference that this test set can show, {numbers}"
    return f"{title}: {'better' if paired.difference > 0 else 'worse'}, {numbers}"


def millions(count: int) -> str:
    """Parameters in millions, three figures."""
    return f"{count / 1e6:.2f}" if count < 10e6 else f"{count / 1e6:.1f}"


def short(name: str) -> str:
    """The last part of a model's name."""
    return name.removeprefix("asset:").rstrip("/").split("/")[-1]


def _frozen(part: Any) -> str:
    return yaml.safe_dump(part, sort_keys=True)
