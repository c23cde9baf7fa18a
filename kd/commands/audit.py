"""``kd audit RUN``: differences between groups of people in a student's answers, and what transfer changed in them."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from scipy.special import softmax

from kd.audit import page, texts
from kd.audit.comparisons import compare
from kd.audit.flips import Probabilities, flips
from kd.classifier import load, logits_of
from kd.config import model_options
from kd.config.check import rows_of_run
from kd.errors import KDError
from kd.report.model_card import updated
from kd.report.page import refuse_other, write
from kd.report.runs import find_runs
from kd.report.study import studies
from kd.report.tables import EMPTY, Table
from kd.report.terminal import printed
from kd.report.words import plain
from kd.run.directory import RunDirectory
from kd.storage import audit_record, records
from kd.storage.paths import refuse_link

log = logging.getLogger(__name__)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="kd audit",
        description="Measure the differences between groups of people in a student's answers, against its teacher and "
        "against the same student without one. Writes audit.json and the page audit/index.html.",
    )
    parser.add_argument("run", type=Path, help="finished run, Hugging Face folder, or export")
    parser.add_argument("--teacher", help="run, Hugging Face folder or export, or none (default: the run's own)")
    parser.add_argument("--alone", help="run of the same student without a teacher, or none (default: found beside it)")
    parser.add_argument("--class", dest="of_class", help="label whose probability is compared (default: the last)")
    parser.add_argument("--least", type=float, default=0.01, help="smallest difference that counts (default: 0.01)")
    parser.add_argument("--on", type=Path, metavar="FILE", help="Equity Evaluation Corpus, or any file with --group")
    parser.add_argument("--group", help="column of --on with the groups of people")
    parser.add_argument("--pair", help="column of --on that is the same for texts that differ in the group alone")
    parser.add_argument("--label", help="column of --on with labels, if any (default: the run's own data.label)")
    parser.add_argument("--out", type=Path, help="folder for audit.json and the page (default: RUN)")
    model_options.add_options(parser)
    options = parser.parse_args(arguments)
    if not 0 <= options.least < 1:
        raise KDError(f"--least: expected a difference of probabilities in [0, 1), got {options.least:g}; give 0.01")
    if (options.group or options.pair) and not options.on:
        raise KDError("--group and --pair name columns of a file, found no file; give it with --on FILE")
    if options.pair and not options.group:
        raise KDError("--pair: expected --group too, found none; name the column with the groups of people")
    return options


def main(arguments: list[str]) -> int:
    """Compare the groups, print the tables, and save them with their page."""
    options = parsed(arguments)
    model_options.begin("kd audit", options)
    run, out = RunDirectory.of_model(options.run), options.out or options.run
    for name in (audit_record.NAME, audit_record.PAGE, "model/README.md"):
        refuse_link(out, out / name)
    refuse_other(out / audit_record.PAGE)
    paths = {"student": options.run, **others(options, run)}
    student = load(options.run, options.label_names)
    names = student.label_names
    logits = {
        name: logits_of(student if name == "student" else load(path), f"'{path}'", names, options.batch_size)
        for name, path in paths.items()
    }
    models = {name: lambda texts, own=own: softmax(own(texts), axis=1) for name, own in logits.items()}
    of_class = options.of_class or names[-1]
    if of_class not in names:
        raise KDError(f"--class: expected one of {', '.join(names)}, got {of_class}")
    audited = texts_of(options, run, names)
    probabilities = {name: model(audited.rows["text"].tolist()) for name, model in models.items()}
    found = compare(audited, probabilities, names.index(of_class), options.least)
    content = {
        **{"format": records.FORMAT, "source": audited.source, "texts": len(audited.rows), "of_class": of_class},
        **{"least": options.least, "models": {name: os.path.relpath(path, out) for name, path in paths.items()}},
        "comparisons": [one.record() for one in found],
        "flips": real_flips(options, run, audited, models, names),
    }
    content["sentence"] = page.sentence(content)
    out.mkdir(parents=True, exist_ok=True)
    with updated(run if run and out == run.path else None):
        records.write(out / audit_record.NAME, content)
    place = write(page.document(content, options.run.resolve().name, arguments), out / audit_record.PAGE)
    for table in page.tables(content):
        if table.name not in ("sizes", "examples"):
            show(table)
    print(content["sentence"])
    print(f"saved: {out / audit_record.NAME} and {os.path.relpath(place)}")
    return 0


def others(options: argparse.Namespace, run: RunDirectory | None) -> dict[str, Path]:
    """Return the paths of the student alone and of the teacher, so far as there are any."""
    found = {"alone": options.alone or (run and alone_of(run)), "teacher": options.teacher}
    if not options.teacher:
        found["teacher"] = model_options.teacher_of(run, options.run, log.warning)
    if run and not found["alone"] and run.metrics()["method"] != "supervised":
        log.warning("the student alone is left out: there is no matched supervised run beside '%s'", run.path)
    return {name: Path(path) for name, path in found.items() if path and path != "none"}


def alone_of(run: RunDirectory) -> Path | None:
    """Return the supervised run beside a run that the report would compare it with, of the same seed."""
    for study in studies(find_runs([run.path.resolve().parent]).runs):
        for arm in study.arms:
            for one in arm.runs:
                baseline = study.baseline_of.get(arm.name)
                if one.directory.path.samefile(run.path) and baseline and one.seed in baseline.seeds:
                    return baseline.run_of(one.seed).directory.path
    return None


def texts_of(options: argparse.Namespace, run: RunDirectory | None, names: list[str]) -> texts.AuditTexts:
    """Return the texts of ``--on``, or those of the templates."""
    if not options.on:
        return texts.templates()
    if not options.group:
        return texts.corpus(options.on, options.encoding)
    columns = model_options.columns(options, run)
    return texts.grouped(
        options.on, {**columns, "group": options.group, "pair": options.pair or ""}, names, options.encoding
    )


def real_flips(
    options: argparse.Namespace,
    run: RunDirectory | None,
    audited: texts.AuditTexts,
    models: Mapping[str, Probabilities],
    names: list[str],
) -> dict[str, Any] | None:
    """Count the flips in the texts of ``--on FILE --group COLUMN``, or in the validation rows of the run."""
    if options.group:
        return flips(audited.source, audited.rows["text"].tolist(), models, names)
    if run is None:
        return None
    try:
        rows = list(rows_of_run(run, "validation").validation["text"])
    except KDError as error:
        log.warning("flips in real rows are left out: %s", error)
        return None
    return flips("validation", rows, models, names)


def show(table: Table) -> None:
    """Print a table of the page; a cell of the first column that repeats the one above it is empty."""
    pairs = pairwise([[EMPTY], *table.rows])
    rows = [[EMPTY if above[0] == row[0] else row[0], *row[1:]] for above, row in pairs]
    made = printed(replace(table, rows=rows))
    made.title, made.title_justify = Text(plain(table.title)), "left"
    console = Console()
    console.print(made, highlight=False)
    console.print()
