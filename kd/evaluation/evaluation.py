"""Measure a classifier on all data, and put the figures into the content of ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kd.config.check import keys_seen, rows_of_run
from kd.data.splits import text_keys
from kd.errors import KDError
from kd.evaluation import measures, rows, slices
from kd.evaluation.robustness import robustness
from kd.evaluation.rows import SPLITS, Rows
from kd.evaluation.subject import Subject
from kd.evaluation.suites import contrast_sets, suite
from kd.measure.significance import difference_interval
from kd.storage import records
from kd.transfer.edits import wordnet


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Args:
        on: names of splits, and files; the first is the reference of the others.
        text, label: columns of the files.
        encoding: of text files.
        slices: columns that make slices.
        robustness: whether the first data are changed.
        wordnet: its folder, for changes with synonyms.
        pairs: file with contrast sets.
        pair_column: its column of the ids.
        suite: file with a suite of tests.
        seed: of the random changes.
    """

    on: Sequence[str]
    text: str
    label: str
    encoding: str = "utf-8"
    slices: Sequence[str] = ()
    robustness: bool = False
    wordnet: Path | None = None
    pairs: Path | None = None
    pair_column: str = "pair"
    suite: Path | None = None
    seed: int = 0


def evaluation(subject: Subject, wanted: Wanted) -> dict[str, Any]:
    """Return the content of ``evaluation.json``.

    Raises:
        KDError: rows, pairs or the suite cannot be read or do not fit the classifier.
    """
    data = data_of(subject, wanted)
    if wanted.wordnet:
        wordnet(wanted.wordnet)  # it refuses another folder before a model runs
    tests = suite(wanted.suite, subject.label_names, subject.logits) if wanted.suite else []
    pairs = pairs_of(subject, wanted) if wanted.pairs else None
    temperature, known = fitted(subject)
    found: list[dict[str, Any]] = []
    reference, changes = None, []
    for place, each in enumerate(data):
        logits = subject.logits(each.texts)
        of_fit = each.is_split and each.name == "validation"  # the temperature was fitted on these rows
        one = measured(subject, each, logits, None if of_fit else temperature, known)
        right = logits.argmax(axis=1) == each.labels
        if reference is None:
            reference = right
        else:
            bounds = difference_interval(right, reference)
            one["difference"] = measures.estimate(float(right.mean() - reference.mean()), bounds)
        if wanted.robustness and place == 0:
            changes = robustness(each.texts, each.labels, logits, subject.logits, wanted.wordnet, wanted.seed)
        found.append(one)
    return {
        **{"format": records.FORMAT, "labels": list(subject.label_names), "temperature": temperature},
        "teacher": teacher_name(subject, found),
        "bag": subject.bag_path.name if subject.bag_path else None,
        **{"notes": subject.notes, "data": found, "robustness": changes, "pairs": pairs, "suite": tests},
    }


def teacher_name(subject: Subject, found: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the name of the teacher, if something was compared with it."""
    if not any(one["teacher"] for one in found):
        return None
    if subject.given_teacher:
        return subject.given_teacher.name
    described = subject.run.environment().get("teacher") if subject.run else None
    return str((described or {}).get("name") or "the run's own")


def data_of(subject: Subject, wanted: Wanted) -> list[Rows]:
    """Return all data, the reference first: the first that is named if it is a split, or the run's test rows.

    Raises:
        KDError: a split is asked for and there is no run, or rows cannot be read.
    """
    on, found = list(dict.fromkeys(wanted.on)), []
    columns = dict.fromkeys(wanted.slices, "--slice")
    arguments = (wanted.text, wanted.label, subject.label_names, wanted.encoding, columns)
    files = {name: rows.of_file(Path(name), *arguments) for name in on if name not in SPLITS}
    for each in files.values():
        for name, values in each.columns.items():
            slices.groups(name, values)  # it refuses a column that makes no slices before a model runs
    if files and subject.run:
        known = keys_seen([subject.run])
        for each in files.values():
            if count := sum(text_keys(text)[1] in known for text in each.texts):
                subject.note(
                    f"{count:,} of {len(each.texts):,} texts of {each.name} are training or validation rows of the "
                    "run too: its figures look better than on new texts"
                )
    if subject.run and (not on or on[0] not in SPLITS):
        on = ["test", *(name for name in on if name != "test")]
    for name in on:
        if name in files:
            others = [one.name for key, one in files.items() if key != name]
            found.append(replace(files[name], name=name) if files[name].name in others else files[name])
        elif subject.run is None:
            raise KDError(
                f"--on {name}: expected a labelled file, as '{subject.path}' is no run and lies in none; give the run "
                "whose rows are meant with --run"
            )
        else:
            try:
                found.append(rows.of_split(subject.run, name))
            except KDError as error:
                if name in wanted.on or not files:
                    raise
                subject.note(f"{on[1]} is the reference, as the test rows of the run cannot be read: {error}")
    if not found:
        raise KDError("--on: expected a labelled file or a run, found neither; give a labelled file")
    if wanted.slices and not any(one.columns for one in found):
        raise KDError(
            f"--slice {wanted.slices[0]}: expected a file with such a column in --on, found splits of the run alone, "
            "which have texts and labels; give a file"
        )
    return found


def fitted(subject: Subject) -> tuple[float | None, Mapping[str, int] | None]:
    """Return the temperature, and the words of the run's training rows, if the run's rows can be read."""
    try:
        splits = rows_of_run(subject.run, "validation") if subject.run else None
    except KDError as error:
        splits = None
        subject.note(f"slices of rare and unknown words are left out: {error}")
    validation = rows.of_split(subject.run, "validation") if subject.run and splits and not subject.is_run else None
    known = slices.vocabulary(splits.train["text"]) if splits else None
    return subject.temperature(validation), known


def measured(
    subject: Subject,
    data: Rows,
    logits: np.ndarray,
    temperature: float | None,
    known: Mapping[str, int] | None,
) -> dict[str, Any]:
    """Return all figures of one data set but the difference from the first."""
    given, teacher = logits.argmax(axis=1), subject.teacher_logits(data)
    bag = subject.bag(data.texts) if subject.bag else None
    found = slices.masks(data.texts, known, teacher, data.columns)
    return {
        "name": data.name,
        "rows": len(data.labels),
        "metrics": measures.metrics(logits, data.labels, temperature),
        "confusion": measures.confusion(data.labels, given, logits.shape[1]).tolist(),
        "difference": None,
        "teacher": None if teacher is None else measures.against_teacher(logits, teacher, data.labels),
        "bag": None if bag is None else measures.against_bag(logits, bag, data.labels),
        "slices": slices.compared(found, given == data.labels),
    }


def pairs_of(subject: Subject, wanted: Wanted) -> dict[str, Any]:
    """Return the consistency on contrast sets."""
    assert wanted.pairs
    columns = {wanted.pair_column: "--pair-column"}
    data = rows.of_file(wanted.pairs, wanted.text, wanted.label, subject.label_names, wanted.encoding, columns)
    right = subject.logits(data.texts).argmax(axis=1) == data.labels
    return contrast_sets(data.name, data.columns[wanted.pair_column], right)
