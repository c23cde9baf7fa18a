"""``kd compare``: do a teacher and a student fit, before a run; and where do they differ, after it?"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from kd.classifier import Classifier, load
from kd.comparison import Comparison, Sample, Side, before, page
from kd.config import build, targets
from kd.config.check import check, rows_of_run
from kd.config.compose import composed
from kd.errors import KDError
from kd.evaluation.rows import of_file
from kd.predictor import Predictor
from kd.report.model_card import updated
from kd.report.page import refuse_other, write
from kd.report.words import plain
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher
from kd.runtime.silence import quiet
from kd.storage import comparison_record, records
from kd.storage.paths import refuse_link

WIDTH = 80
READ = ("config.yaml", "environment.json", "model")


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="kd compare",
        usage="kd compare RUN | TEACHER STUDENT | --before [GROUP=CHOICE | OPTION=VALUE]...",
        description="Compare a student with its teacher: tokenizers, lengths, label order, layers, answers. Writes "
        "comparison.json and the page comparison/index.html beside the student. With --before, nothing is trained: "
        "the words are those of kd train.",
    )
    parser.add_argument("words", nargs="*", metavar="RUN|OVERRIDE", help="run, Hugging Face folder, export; or options")
    parser.add_argument("--before", action="store_true", help="compare before kd train with these options")
    parser.add_argument("--config-dir", type=Path, help="your own conf/, as for kd train; with --before")
    parser.add_argument("--on", metavar="FILE", help="labelled file (default: the rows of the run)")
    parser.add_argument("--text", help="column of --on with the texts (default: the student's data.text)")
    parser.add_argument("--label", default="label", help="column of --on with the labels (default: label)")
    parser.add_argument("--out", type=Path, help="folder for comparison.json and the page (default: STUDENT)")
    parser.add_argument("--modules", nargs="+", default=[], help="your own modules that the run's data may name")
    options = parser.parse_intermixed_args(arguments)
    if options.before and options.on:
        raise KDError("--on: expected a finished student, found --before; name the data as kd train does: data.path=")
    if not options.before and any("=" in word and not Path(word).exists() for word in options.words):
        raise KDError(
            "expected paths, found options of kd train; kd compare --before student=dan compares before a run"
        )
    if not options.before and len(options.words) not in (1, 2):
        raise KDError(
            f"expected a run, or a teacher and a student, found {len(options.words)} words; kd compare RUN, "
            "kd compare TEACHER STUDENT, or kd compare --before with the options of kd train"
        )
    return options


def main(arguments: list[str]) -> int:
    """Compare the two, print the findings, and save them with their page."""
    options = parsed(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="kd compare: %(message)s")
    quiet()
    out = options.out or (None if options.before else Path(options.words[-1]))
    if out:
        refuse_link(out, out / comparison_record.NAME)
        refuse_other(out / comparison_record.PAGE)
    if options.before:
        config = composed(options.words, options.config_dir)
        check(config)
        found, teacher, student = before(config, build.given_rows(config)), config.teacher.name_or_path, "student"
        student = config.choices.student
    else:
        *given, place = map(Path, options.words)
        found, path = of_models(options, place, given[0] if given else None)
        teacher, student = os.path.relpath(path, out), place.resolve().name
    content = page.content(found, teacher, student)
    show(content, found)
    if out is None:
        return 0
    out.mkdir(parents=True, exist_ok=True)
    with updated(RunDirectory(out) if not options.before and RunDirectory.is_one(out) else None):
        records.write(out / comparison_record.NAME, content)
    index = write(page.document(content, student, arguments), out / comparison_record.PAGE)
    print(f"saved: {out / comparison_record.NAME} and {os.path.relpath(index)}")
    return 0


def of_models(options: argparse.Namespace, place: Path, teacher: Path | None) -> tuple[Comparison, Path]:
    """Return the comparison of a finished student, and the path of the teacher."""
    targets.trust(options.modules)  # not the modules that the run lists, because a stranger may have made it
    run = RunDirectory.finished(place, READ) if RunDirectory.is_one(place) else None
    student = load(place)
    own = teacher is None
    if teacher is None:
        if run is None:
            raise KDError(f"expected a run, found another model in '{place}'; kd compare TEACHER '{place}' --on FILE")
        teacher = own_teacher(run)
    theirs, settings = load(teacher), run.config() if run else {}
    if own and isinstance(theirs, Predictor):  # its folder allows more than the run gave it
        length = (settings.get("teacher") or {}).get("max_length")
        theirs = replace(theirs, max_length=min(theirs.max_length, length or theirs.max_length))
    sample = sample_of(options, run, student)
    names = sample.label_names
    temperature = settings.get("temperature")
    on_layers = "layers" in (settings.get("method") or {})
    return Comparison(
        Side("teacher", theirs, names),
        Side("student", student, names),
        sample,
        float(temperature) if temperature else None,
        on_layers,
    ), teacher


def sample_of(options: argparse.Namespace, run: RunDirectory | None, student: Classifier) -> Sample:
    """Return the rows of ``--on``, or those of the run."""
    names = list(student.label_names)
    if options.on:
        column = options.text or student.text_column
        rows = of_file(Path(options.on), column, options.label, names, "utf-8")
        halves = Dataset.from_dict({"text": rows.texts, "label": rows.labels}).train_test_split(0.5, seed=0)
        return Sample.of(halves["train"], halves["test"], names, rows.name)
    if run is None:
        raise KDError("expected rows to compare on, found none, as the student is no run; give them with --on FILE")
    splits, made = rows_of_run(run, "validation"), run.environment()["data"]["counts"].get("transfer_set") or {}
    return Sample.of(splits.train, splits.validation, splits.label_names, "validation", made.get("rows", 0))


def show(content: Mapping[str, Any], found: Comparison) -> None:
    """Print the findings."""
    wrap = lambda text, indent: print(  # noqa: E731
        textwrap.fill(plain(text), WIDTH, initial_indent=indent, subsequent_indent="  ", break_on_hyphens=False)
    )
    if not found.teacher.answers:
        wrap("The teacher is not fine-tuned yet: its backbone is compared, and its answers are left out.", "")
    for one in content["findings"]:
        wrap(f"{one['name']}: {one['sentence']}", "")
        if one["setting"]:
            wrap(f"set {one['setting']}", "  -> ")
    print()
    wrap(content["sentence"], "")
