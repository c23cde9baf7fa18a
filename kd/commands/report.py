"""``kd report DIR...``: one table of finished runs, read from disk without torch."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from kd.errors import KDError
from kd.run import RunDirectory
from kd.statistics import PairedDifference, accuracy_interval, compare

GROUPS = ("student", "embeddings", "tokenizer", "teacher", "data")
"""Groups of choices; two options of one group are told apart by name rather than key by key."""
NO_DIFFERENCE = ("outputs", "resume", "rerun", "cache", "threads", "logger", "choices", "teacher.labelling_batch_size")
"""What may differ between runs of equal result."""
OF_TRANSFER = ("alpha", "temperature", "loss", "balance", "method", "mapper", "peers")
"""What a supervised run does not read, and what two ways of transfer may differ in."""
FIGURES = (
    *("method", "student", "embeddings", "data", "seed", "test", "parameters", "model_bytes", "latency"),
    *("padding_share", "training_seconds", "weights"),
)
METHOD_WORDS = {
    "supervised": "alone",
    "distillation": "distilled",
    "feature_mapping to_teacher": "hinted",
    "feature_mapping to_student": "mapped",
    "joint": "joint",
}
"""What a row is called; feature mapping by its direction."""


def main(arguments: list[str]) -> int:
    """Print one table of finished runs."""
    parser = argparse.ArgumentParser(prog="kd report", description="Print one table of finished runs.")
    parser.add_argument("folders", nargs="+", type=Path, help="run directories, or folders that hold them")
    options = parser.parse_args(arguments)
    report(find_runs(options.folders), Console(soft_wrap=False))
    return 0


@dataclass(frozen=True)
class Run:
    """A finished run as the table reads it.

    Args:
        metrics, environment: as on disk.
        settings: what decides the result, as flat keys; options of a group by name.
        test: the columns of the test rows of ``predictions.parquet``.
    """

    metrics: dict[str, Any]
    environment: dict[str, Any]
    settings: dict[str, Any]
    test: dict[str, np.ndarray]

    @classmethod
    def read(cls, directory: RunDirectory) -> Run:
        """Raises:
        KDError: a file that is missing or damaged.
        """
        try:
            metrics, environment = directory.metrics(), directory.environment()
            if missing := [key for key in FIGURES if key not in metrics]:
                raise KDError(f"the run in '{directory.path}' lacks the figures {', '.join(missing)}; train it again")
            table = pyarrow.parquet.read_table(directory.predictions_file, filters=[("split", "=", "test")])
            test = {name: np.array(table[name].to_pylist()) for name in table.column_names if name != "split"}
            return cls(metrics, environment, settings(directory.config(), metrics["method"]), test)
        except (OSError, KeyError, TypeError, pyarrow.ArrowException) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise KDError(f"the run in '{directory.path}' is damaged ({reason}); train it again") from error

    @property
    def supervised(self) -> bool:
        return self.metrics["method"] == "supervised"

    @property
    def way(self) -> str:
        """The method in a word."""
        way = " ".join(filter(None, [self.metrics["method"], self.direction]))
        return METHOD_WORDS.get(way, way)

    @property
    def direction(self) -> str | None:
        """Of feature mapping."""
        return self.settings.get("method.direction")

    @cached_property
    def correct(self) -> np.ndarray:
        """``[N]`` bool: the student's label is the gold one."""
        return self.test["logits"].argmax(axis=1) == self.test["label"]

    @cached_property
    def teacher_correct(self) -> np.ndarray:
        """``[N]`` bool: the teacher's label is the gold one."""
        return self.test["teacher_logits"].argmax(axis=1) == self.test["label"]


def settings(config: dict[str, Any], method: str) -> dict[str, Any]:
    """What decides a run's result: flat keys of its configuration, groups of choices by the name of the option."""
    found = {f"choices.{group}": config["choices"][group] for group in GROUPS}
    for key, value in flat(config):
        root = key.split(".")[0]
        if key.startswith(NO_DIFFERENCE) or (method == "supervised" and root in OF_TRANSFER):
            continue
        if root in ("balance", "mapper") and key.endswith("._target_"):
            found[key.removesuffix("._target_")] = value.rpartition(".")[2]
        if key.endswith(("._target_", "._partial_")) or key.startswith(("callbacks.progress", "data.source")):
            continue
        if root == "loss" and key.endswith(".temperature"):
            continue  # the top-level key says it
        if key in ("balance.alpha.value", "balance.temperature.value"):
            continue  # so here
        found[key] = value
    if method != "supervised":
        found["loss"] = "+".join(config["loss"]) or "none"
    if found.get("method.direction") == "to_student":
        towards_words = found["mapper"] in ("LeastSquares", "Procrustes")  # fitted to the word table
        found = {key: value for key, value in found.items() if not of_own_words(key, towards_words)}
    return found


def of_own_words(key: str, towards_words: bool = False) -> bool:
    """Whether a composition of teacher and student does not read this: it has the teacher's words."""
    groups = ("tokenizer",) if towards_words else ("tokenizer", "embeddings")
    return key.split(".")[0] in groups or key in [f"choices.{group}" for group in groups]


def flat(node: dict[str, Any], place: str = "") -> Iterable[tuple[str, Any]]:
    """Keys joined by dots, with the values at their ends."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """The finished runs in or below the folders; others are counted on standard error.

    Raises:
        KDError: a folder that is not there, or no finished run in any.
    """
    found, unfinished = [], 0
    for folder in folders:
        if not folder.is_dir():
            raise KDError(f"expected a folder with runs, found nothing at '{folder}'; give what kd train printed")
        for status in sorted(folder.glob("**/status.json")):
            directory = RunDirectory(status.parent)
            try:
                if directory.status().get("state") != "done":
                    unfinished += 1
                    continue
                found.append(Run.read(directory))
            except KDError as error:
                print(f"kd report: left out: {error}", file=sys.stderr)
    if unfinished:
        print(f"kd report: {unfinished} runs that are not finished are left out", file=sys.stderr)
    if not found:
        raise KDError(f"expected finished runs in {', '.join(map(str, folders))}, found none; run kd train first")
    return found


def report(runs: list[Run], console: Console) -> None:
    """Print the table and what it says.

    Raises:
        KDError: runs that were tested on different rows.
    """
    if len({run.environment["data"]["test"] for run in runs}) > 1:
        sets = ", ".join(sorted({run.metrics["data"] for run in runs}))
        raise KDError(f"expected runs with one test set, found several (data {sets}); report them one by one")
    unique = {(run.metrics["method"], *sorted(run.settings.items(), key=str)).__repr__(): run for run in runs}
    names = labels(list(unique.values()))
    rows = sorted(zip(names, unique.values(), strict=True), key=lambda row: row[0])
    first = rows[0][1].metrics
    shared = ", ".join(sorted({run.metrics["student"] for run in unique.values()}))
    say = lambda text: console.print(text, markup=False, highlight=False)  # noqa: E731
    say(f"student {shared} on {first['data']}")
    console.print(table(rows))
    for note in notes(rows):
        say(note)
    found = findings(rows)
    if found.row_count:
        say("")
        console.print(found)
        say("p: McNemar's exact test. not decided: no difference that this test set can show.")


def labels(runs: list[Run]) -> list[str]:
    """A name for each run: its way, and every setting in which the runs of its kind differ from it or each other."""
    keys = {key for run in runs for key in run.settings}
    values = {key: {repr(run.settings[key]) for run in runs if key in run.settings} for key in keys}
    by_name = {key.split(".")[1] for key in keys if key.startswith("choices.") and len(values[key]) > 1}
    differing = sorted(key for key in keys if len(values[key]) > 1 and key.split(".")[0] not in by_name)
    names = []
    for run in runs:
        words = [run.way]
        for key in differing:
            if key in run.settings and not told_by_the_way(run, key, runs):
                value = run.settings[key]
                plain = key.startswith("choices.") or key in ("loss", "mapper")
                words.append(str(value) if plain else f"{key.split('.')[-1]}={value}")
        names.append(" ".join(words))
    return names


def told_by_the_way(run: Run, key: str, runs: list[Run]) -> bool:
    """Whether all runs of this way have the same value of what belongs to transfer: the name need not say it."""
    if key.split(".")[0] not in OF_TRANSFER:
        return False
    if key.startswith("method.") and not run.settings[key]:  # an option that nobody asked for
        return True
    return len({repr(other.settings.get(key)) for other in runs if other.way == run.way}) == 1


def table(rows: list[tuple[str, Run]]) -> Table:
    """A row for each teacher and each run, 80 columns wide."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("model", overflow="fold")
    for name in ("test % [95 %]", "agree", "M (no emb)", "MB", "p50 ms", "train s"):
        table.add_column(name, justify="right", no_wrap=True)
    taught = [run for _, run in rows if run.environment["teacher"] and run.way != "joint"]  # there it moved
    teachers = {run.environment["teacher"]["checksum"]: run for run in taught}
    for run in teachers.values():
        cost = run.metrics["teacher_cost"]
        name = "teacher" if len(teachers) == 1 else f"teacher {short(cost['name'])}"
        table.add_row(name, *cells(run.teacher_correct, None, cost))
    for name, run in rows:
        table.add_row(name, *cells(run.correct, run.metrics["test"].get("agreement"), run.metrics))
    return table


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


def teacher_left(name: str, run: Run) -> str:
    """How much of the teacher a composition carries along."""
    inside = run.metrics["teacher_inside"]
    parts = inside["encoder"] / run.metrics["parameters"]["total"]
    share = inside["encoder_ms"] / run.metrics["latency"]["p50_ms"]
    return (
        f"{name}: of the teacher {millions(inside['encoder'])} M parameters are still in it (layer "
        f"{inside['layer']}), {parts:.0%} of all, and {inside['encoder_ms']:.2f} ms, {min(share, 1):.0%} of its p50."
    )


def teacher_moved(name: str, run: Run) -> str:
    """What joint training did to the teacher."""
    teacher = run.metrics["partners"]["teacher"]
    before, after = 100 * teacher["validation_accuracy_before"], 100 * teacher["validation_accuracy"]
    noise = 2 * (before * (100 - before) / run.metrics["validation"]["rows"]) ** 0.5
    words = ("dragged down", "no difference that these rows can show", "lifted")
    word = words[0] if after < before - noise else words[2] if after > before + noise else words[1]
    return (
        f"{name}: its teacher went from {before:.1f} to {after:.1f} % on validation in joint training: {word}. "
        "agree: with the teacher as it was then."
    )


def notes(rows: list[tuple[str, Run]]) -> list[str]:
    """How to read the table."""
    runs = [run for _, run in rows]
    first = runs[0].metrics
    threads = sorted({run.metrics["latency"]["threads"] for run in runs})
    padding = [run.metrics["padding_share"] for run in runs]
    seeds = {run.metrics["seed"] for run in runs}
    chosen = {run.metrics["weights"] for run in runs}
    lines = [
        f"{first['test']['rows']} test rows, read once a run, after training. Weights: {' or '.join(sorted(chosen))}.",
        "M: million parameters in all (without embeddings). MB: model on disk.",
        f"p50: one text on the CPU, {'/'.join(map(str, threads))} threads, tokenizer apart.",
        f"Padding: at most {max(padding):.1%} of the training tokens.",
    ]
    teachers = sorted({short(run.metrics["teacher_cost"]["name"]) for run in runs if "teacher_cost" in run.metrics})
    if teachers:
        lines.insert(1, f"agree: % of test rows with the label that the teacher ({', '.join(teachers)}) gives.")
    lines += [teacher_left(name, run) for name, run in rows if "teacher_inside" in run.metrics]
    lines += [teacher_moved(name, run) for name, run in rows if "teacher" in run.metrics.get("partners", {})]
    if len(seeds) == 1:
        lines.append("One seed: the intervals tell of the test rows, not of the luck of a start.")
    return lines


def findings(rows: list[tuple[str, Run]]) -> Table:
    """What transfer brought, what another way of it brought, and what the start brought: each against its match."""
    brought: dict[str, list[list[str]]] = {}
    for name, run in rows:
        for other_name, other in rows:
            title = comparison(run, other)
            if title:
                brought.setdefault(title, []).append([f"{name} - {other_name}", *verdict(run, other)])
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("what ...", overflow="fold")
    for name, side in (("points [95 %]", "right"), ("p", "right"), ("", "left")):
        table.add_column(name, justify=side, no_wrap=True)
    for title in sorted(brought, key=TITLES.index):
        table.add_row(f"... {title}:")
        for line in brought[title]:
            table.add_row(*line)
    return table


TITLES = (
    "the teacher brought, over the student alone",
    "another way brought, over distillation",
    "the teacher's word table brought",
    "its peers brought, over the student alone",
)


def comparison(run: Run, other: Run) -> str | None:
    """The title under which two runs are compared; None for runs that are no match."""
    apart = {key.split(".")[-1] for key in run.settings | other.settings if differ(run, other, key)}
    if other.supervised and not run.supervised and not apart:
        return TITLES[0] if run.environment["teacher"] else TITLES[3]
    if other.way == "distilled" and not run.supervised and run.way != other.way and not apart:
        return TITLES[1]
    if run.way == other.way and apart == {"embeddings"} and other_start(run, other):
        return TITLES[2]
    return None


def differ(run: Run, other: Run, key: str) -> bool:
    """Whether two runs differ in a setting that both read; the options' own keys go with their names."""
    root = key.split(".")[0]
    if root in OF_TRANSFER and run.way != other.way:
        return (
            root in ("alpha", "temperature")
            and not (run.supervised or other.supervised)
            and run.settings.get(key) != other.settings.get(key)
        )
    if of_own_words(key) and "to_student" in (run.direction, other.direction) and run.way != other.way:
        return False
    if root in GROUPS and run.settings.get(f"choices.{root}") != other.settings.get(f"choices.{root}"):
        return False
    return run.settings.get(key) != other.settings.get(key)


def other_start(run: Run, other: Run) -> bool:
    """A table from the teacher on this side, a random one on the other."""
    return run.metrics["embeddings"] == "pca" and other.metrics["embeddings"] == "random"


def verdict(run: Run, other: Run) -> tuple[str, str, str]:
    """Difference with its interval in points, p-value, and what they say."""
    paired: PairedDifference = compare(run.correct, other.correct)
    points = f"{100 * paired.difference:+.1f} [{100 * paired.low:+.1f}, {100 * paired.high:+.1f}]"
    word = "not decided" if not paired.decided else "better" if paired.difference > 0 else "worse"
    return points, f"{paired.p_value:.2g}", word


def millions(count: int) -> str:
    """Parameters in millions, three figures."""
    return f"{count / 1e6:.2f}" if count < 10e6 else f"{count / 1e6:.1f}"


def short(name: str) -> str:
    """The name of a model, or of several, without the folders."""
    return re.sub(r"asset:|[^\s+]*/(?=[^\s+/])", "", name).rstrip("/")
