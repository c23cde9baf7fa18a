"""The table that ``kd report`` prints, 80 columns wide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kd.report import tables
from kd.report.arms import TITLES, Arm, deviation, usual_seeds
from kd.report.folds import pooled_sentence
from kd.report.runs import Run, figure
from kd.report.study import Study
from kd.report.summary import NO_BAG, against_bag, needed
from kd.report.words import METRICS, capital, listed, millions, plain, short

UNKNOWN = "method=supervised with the same student, data and budget (these runs have no record of their command)"


TESTED = {"accuracy": "test %", "macro_f1": "test F1 %", "balanced_accuracy": "balanced %", "auroc": "AUROC %"}
"""The head of the column with the metric."""


def show(study: Study, console: Console) -> None:
    """Print the table, the notes and the comparisons of one test set."""
    say = lambda text: console.print(plain(text), markup=False, highlight=False)  # noqa: E731
    say(f"student {study.title}")
    console.print(table(study))
    for note in notes(study):
        say(note)
    for line in against_bag(study):
        say(line)
    if study.bag_command:
        say(NO_BAG)
        console.print(f"  {plain(study.bag_command)}", markup=False, highlight=False, soft_wrap=True)
    if study.comparisons:
        say("")
        console.print(findings(study))
        several = any(len(one.pair.seeds) > 1 for family in study.comparisons.values() for one in family)
        mcnemar = "the larger of McNemar's exact test and " if study.metric == "accuracy" else ""
        say(f"p: {mcnemar}the bootstrap over {'seeds and ' if several else ''}rows,")
        say("after Holm's correction in each block; the intervals are at its levels.")
        say("not decided: the difference is not significant on this test set.")
        for line in needed(study):
            say(line)
    for missing in study.missing:
        say(f"{capital(str(missing))}. This command trains it:")
        console.print(f"  {plain(missing.command or UNKNOWN)}", markup=False, highlight=False, soft_wrap=True)


def printed(table: tables.Table) -> Table:
    """Return a table of a page for the terminal. Its texts may be a stranger's: they are written as they are."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        made.add_column(Text(plain(column)), justify="left" if column in table.words else "right")
    for row in table.rows:
        made.add_row(*(Text(plain(cell.text)) for cell in row))
    return made


def table_of(subject: str, figures: Sequence[str]) -> Table:
    """Return an empty table with a column of names and columns of figures."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(subject, overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def table(study: Study) -> Table:
    """Tabulate each teacher and each arm; means over seeds, in per cent."""
    table = table_of("model", (f"{TESTED[study.metric]} [95 %]", "agree", "M (no emb)", "MB", "p50 ms", "train s"))
    for arm in (*study.teachers, *study.arms):
        agreement, seconds = arm.mean("test", "agreement"), arm.mean("training_seconds")
        spread = "" if len(arm.runs) == 1 else f" ±{100 * (deviation(arm.scores) or 0):.1f}"
        low, high = study.judge.interval(arm)
        parameters = arm.first.metrics.get("parameters")
        table.add_row(
            Text(plain(arm.name)),  # a `Text`, because rich would read markup in a string
            f"{100 * arm.score:.1f}{spread} [{100 * low:.1f}, {100 * high:.1f}]",
            "" if agreement is None else f"{100 * agreement:.1f}",
            *(cost_of(arm) if parameters else ["", "", ""]),  # a teacher that is a file has none
            "" if seconds is None else f"{seconds:.0f}",
        )
    return table


def cost_of(arm: Arm) -> list[str]:
    """Return the cells of parameters, bytes and latency."""
    parameters = arm.first.metrics["parameters"]
    return [
        f"{millions(parameters['total'])} ({millions(parameters['without_embeddings'])})",
        f"{(arm.mean('model_bytes') or 0) / 1e6:.1f}",
        f"{arm.mean('latency', 'p50_ms') or 0:.2f}",
    ]


def teacher_answered(run: Run) -> str | None:
    """Say how good a teacher is that is a file without answers for some test rows; None for any other."""
    rows, accuracy = (figure(run.metrics, "test", "teacher", name) for name in ("rows", "accuracy"))
    if not rows or accuracy is None:
        return None
    name = short(run.metrics["teacher_cost"]["name"])
    return (
        f"The teacher {name} answers {rows} of {run.metrics['test']['rows']} test rows, {100 * accuracy:.1f} % of them "
        "right. agree is over these rows."
    )


def teacher_left(name: str, run: Run) -> str:
    """Say how much of the teacher a composition keeps."""
    inside = run.metrics["teacher_inside"]
    parts = inside["encoder"] / run.metrics["parameters"]["total"]
    # The whole was timed in turns with the encoder, where that time was kept.
    share = inside["encoder_ms"] / inside.get("whole_ms", run.metrics["latency"]["p50_ms"])
    return (
        f"{name}: it contains the teacher up to layer {inside['layer']}: {millions(inside['encoder'])} M parameters, "
        f"{parts:.0%} of all, and {inside['encoder_ms']:.2f} ms, {min(share, 1):.0%} of its p50."
    )


def teacher_moved(arm: Arm) -> str:
    """Say how joint training changed the teacher's accuracy, mean over seeds."""
    before, after = (
        100 * np.mean([run.metrics["partners"]["teacher"][key] for run in arm.runs])
        for key in ("validation_accuracy_before", "validation_accuracy")
    )
    noise = 2 * (before * (100 - before) / arm.first.metrics["validation"]["rows"]) ** 0.5
    word = "no significant difference on these rows"
    if abs(after - before) > noise:
        word = "it became worse" if after < before else "it became better"
    return (
        f"{arm.name}: its teacher went from {before:.1f} to {after:.1f} % on validation in joint training: {word}. "
        "Its agree is with the teacher after training."
    )


def notes(study: Study) -> list[str]:
    runs = study.runs
    threads = sorted({run.metrics["latency"]["threads"] for run in runs})
    padding = [run.metrics["padding_share"] for run in runs]
    chosen = {run.metrics["weights"] for run in runs}
    lines = [
        f"{study.rows} test rows, read once by each run, after training. Weights: {' or '.join(sorted(chosen))}.",
        "M: million parameters in all (without embeddings). MB: model on disk.",
        f"p50: one text on the CPU, {'/'.join(map(str, threads))} thread{'s' * (threads != [1])}, no tokenizer.",
        f"Padding: at most {max(padding):.1%} of the training tokens.",
    ]
    if pooled := pooled_sentence(study.runs[0]):
        lines.insert(1, pooled)
    if study.metric != "accuracy":
        words = METRICS[study.metric]
        lines.insert(1, f"{capital(words)} in per cent: these runs were trained with metric={study.metric}.")
    if study.differing:
        lines.insert(1, f"The runs follow different metrics ({listed(study.differing)}): accuracy is shown.")
    if teachers := {short(run.metrics["teacher_cost"]["name"]) for run in runs if "teacher_cost" in run.metrics}:
        named = ", ".join(sorted(teachers))
        lines.insert(1, f"agree: % of test rows with the label that the teacher ({named}) gives.")
    lines += sorted({answered for run in runs if (answered := teacher_answered(run))})
    lines += [teacher_left(arm.name, arm.first) for arm in study.arms if "teacher_inside" in arm.first.metrics]
    lines += [teacher_moved(arm) for arm in study.arms if "teacher" in arm.first.metrics.get("partners", {})]
    if all(len(arm.runs) == 1 for arm in study.arms):
        lines.append("One seed: the intervals are over the test rows, and do not include the variation between seeds.")
    else:
        lines.append("±: standard deviation over seeds (n - 1). The intervals are over seeds and rows.")
        usual = usual_seeds([arm.seeds for arm in study.arms if not arm.is_fitted] or [study.arms[0].seeds])
        lines.append(f"Seeds: {', '.join(map(str, usual))}, unless the name has others.")
    return lines


def findings(study: Study) -> Table:
    """Tabulate the comparisons under their titles."""
    table = table_of("comparison", ("points [95 %]", "p"))
    table.add_column("", no_wrap=True)
    for family, found in study.comparisons.items():
        table.add_row(f"{TITLES[family]}:")
        for one in found:
            low, high = one.interval
            points = f"{100 * one.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
            pair = f"{one.pair.arm.name} - {one.pair.other.name}"
            table.add_row(Text(plain(pair)), points, f"{one.adjusted:.2g}", one.verdict)
    return table
