"""``kd cascade RUN --teacher T``: how sure a student must be to answer in place of its teacher."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from kd.cascade import curve, rows
from kd.cascade.cascade import Cascade, checksum
from kd.cascade.threshold import NOBODY, Outcomes, choose, lower_bound
from kd.classifier import load
from kd.config import targets
from kd.errors import KDError
from kd.measure.significance import accuracy_interval
from kd.report.calibration import fit_temperature
from kd.report.drawing import drawn
from kd.run import predictions
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher
from kd.storage import cascade_record, records
from kd.storage.files import write_bytes
from kd.storage.paths import refuse_link

READ = ("config.yaml", "environment.json", "metrics.json", "predictions.parquet", "model")
TIMED = 100
"""Texts on which the classifiers are timed."""


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="kd cascade",
        description="Choose how sure a student must be to answer in place of its teacher, so that the whole agrees "
        "with the teacher with a stated probability. Writes cascade.json and cascade.png into the first run.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directories of finished runs, fastest first")
    parser.add_argument("--teacher", type=Path, help="run, Hugging Face folder or export (default: the run's own)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--agreement", type=float, help="least share of texts on which it agrees (default: 0.98)")
    kind.add_argument(
        "--accuracy", type=float, help="least share of the teacher's right answers that it keeps, such as 0.99"
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="probability that it holds (default: 0.95)")
    parser.add_argument("--on", type=Path, metavar="FILE", help="texts that choose it (default: half of the test rows)")
    parser.add_argument("--text", help="column of --on with the texts (default: the run's own data.text)")
    parser.add_argument("--label", help="column of --on with labels, if any (default: the run's own data.label)")
    parser.add_argument("--encoding", default="utf-8", help="of --on (default: utf-8)")
    parser.add_argument("--batch-size", type=int, default=64, help="texts at a time (default: 64)")
    parser.add_argument("--modules", nargs="+", default=[], help="your own modules that the run's data may name")
    options = parser.parse_args(arguments)
    options.kind = "agreement" if options.accuracy is None else "accuracy"
    options.target = next(value for value in (options.accuracy, options.agreement, 0.98) if value is not None)
    for name, value in ((f"--{options.kind}", options.target), ("--confidence", options.confidence)):
        if not 0 < value < 1:
            raise KDError(f"{name}: expected a share above 0 and below 1, got {value:g}; give 0.95 or so")
    if options.batch_size < 1:
        raise KDError(f"--batch-size: expected at least 1, got {options.batch_size}")
    return options


def main(arguments: list[str]) -> int:
    """Choose the threshold, print and draw what it costs, and save it."""
    options = parsed(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="kd cascade: %(message)s")
    targets.trust(options.modules)  # not the modules that the run lists, because a stranger may have made it
    runs = [RunDirectory.finished(path, READ) for path in options.runs]
    for name in (cascade_record.NAME, cascade_record.DRAWING):
        refuse_link(runs[0].path, runs[0].path / name)
    students = [load(run.path) for run in runs]
    # before the teacher, so that a wrong file is an error at the start
    texts = chosen_rows(options, runs, students[0].label_names) if options.on else None
    teacher = options.teacher or own_teacher(runs[0])
    judge, temperatures = load(teacher), [temperature(run) for run in runs]
    cascade = Cascade(students, judge, temperatures, NOBODY)
    texts = texts or chosen_rows(options, runs, cascade.label_names)
    outcomes = cascade.outcomes(texts.texts, texts.labels, options.batch_size)
    calibration = outcomes.take(texts.calibration)
    judged = about(calibration, options.kind)
    threshold = choose(judged, options.target, options.confidence)
    bound = lower_bound(judged.differing(threshold), len(judged.labels), options.confidence)
    ms = curve.milliseconds([*students, judge], texts.texts[:TIMED])
    measured = outcomes.take(texts.measured) if len(texts.measured) else None
    paths, keys = [*(run.path for run in runs), teacher], ("path", "checksum", "temperature", "milliseconds")
    named = [(os.path.relpath(path, runs[0].path), checksum(path)) for path in paths]
    stages = [
        dict(zip(keys, (*name, *spent), strict=True))
        for name, *spent in zip(named, [*temperatures, 1.0], ms, strict=True)
    ]
    content = {
        **{"format": records.FORMAT, "students": stages[:-1], "teacher": stages[-1], "source": texts.source},
        **{"kind": options.kind, "target": options.target, "confidence": options.confidence, "bound": bound},
        "threshold": None if threshold == NOBODY else threshold,
        "calibration": curve.figures(calibration, threshold, ms),
        "measured": measured and curve.figures(measured, threshold, ms),
    }
    records.write(runs[0].path / cascade_record.NAME, content)
    shown, on = (calibration, "the calibration rows") if measured is None else (measured, "the other test rows")
    drawing = curve.figure(shown, threshold, ms, options.target if options.kind == "agreement" else None, on)
    write_bytes(runs[0].path / cascade_record.DRAWING, drawn(drawing)[0])
    say(content, len(judged.labels), judged.differing(threshold))
    title = f"On {on}, {len(shown.labels)} texts"
    Console(width=100).print(curve.table(shown, threshold, ms, cascade.stages, title))
    print(f"saved: {runs[0].path / cascade_record.NAME} and {cascade_record.DRAWING}")
    return 0


def temperature(run: RunDirectory) -> float:
    """Return the temperature that calibrates a student on its validation rows; 1 where an early kd kept none."""
    splits = predictions.of_run(run, run.metrics(), run.environment(), {})
    return fit_temperature(splits["validation"].logits, splits["validation"].labels) if "validation" in splits else 1.0


def chosen_rows(options: argparse.Namespace, runs: Sequence[RunDirectory], names: list[str]) -> rows.Texts:
    """Return the rows of ``--on``, or the test rows. A teacher that is a run must not have seen them either."""
    others = [RunDirectory(options.teacher)] if options.teacher and RunDirectory.is_one(options.teacher) else []
    if not options.on:
        return rows.halves_of_test(runs, others)
    data = runs[0].config()["data"]
    text, label = options.text or data.get("text") or "text", options.label or data.get("label") or "label"
    return rows.of_file(options.on, text, label, names, options.encoding, [*runs, *others])


def about(calibration: Outcomes, kind: str) -> Outcomes:
    """Return the rows that the target is about: all, or those on which the teacher is right.

    Raises:
        KDError: the accuracy is the target, and no row has a label.
    """
    if kind == "agreement":
        return calibration
    if not (calibration.labels >= 0).any():
        raise KDError("--accuracy: expected calibration rows with labels, found none; set --label, or use --agreement")
    return calibration.take(calibration.teacher == calibration.labels)


def say(content: dict[str, Any], judged: int, differing: int) -> None:
    """Print what is promised, what chose the threshold, and what other rows say."""
    target, confidence = f"{100 * content['target']:g} %", f"{100 * content['confidence']:g} %"
    if content["threshold"] is None:
        print(
            f"No threshold reaches {target} with a confidence of {confidence}: the teacher answers every text. Lower "
            "the target, give more texts with --on FILE, or train a better student."
        )
    else:
        promise = {
            "agreement": f"agrees with the teacher on at least {target} of all texts",
            "accuracy": f"keeps at least {target} of the teacher's right answers",
        }[content["kind"]]
        print(f"Threshold {content['threshold']:.4f}: the cascade {promise}, with a confidence of {confidence}.")
    print(
        f"Chosen on {judged} rows of {content['source']}: it differs on {differing}; exact lower bound "
        f"{content['bound']:.1%}."
    )
    if found := content["measured"]:
        rows, same = found["rows"], found["rows"] - found["differing"]
        low, high = accuracy_interval(np.arange(rows) < same)
        print(
            f"On {rows} other rows: agreement {same / rows:.1%} (95 % interval {low:.1%} to {high:.1%}), accuracy "
            f"{found['accuracy']:.1%} (teacher {found['teacher_accuracy']:.1%})."
        )
