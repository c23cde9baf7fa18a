"""The rows that choose the threshold of a cascade: neither training nor selection has seen them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kd.config.check import keys_seen, rows_of_run
from kd.contract import IGNORED_LABEL
from kd.data.batching import labels_of
from kd.data.dialect import Reading
from kd.data.files import read_rows
from kd.data.labels import LabelReader
from kd.data.splits import text_keys, unusable
from kd.errors import KDError
from kd.run.directory import RunDirectory

log = logging.getLogger(__name__)


class Texts(NamedTuple):
    """Rows for a cascade.

    Args:
        source: their name.
        texts, labels: ``[N]``; the label is -100 where there is none.
        calibration: numbers of the rows that choose the threshold.
        measured: numbers of the others, which measure the cascade.
    """

    source: str
    texts: list[str]
    labels: np.ndarray
    calibration: np.ndarray
    measured: np.ndarray


def halves_of_test(runs: Sequence[RunDirectory], others: Sequence[RunDirectory] = ()) -> Texts:
    """Return the test rows of the runs: a random half chooses the threshold, the other half measures the cascade.

    Args:
        runs: of the students.
        others: that of the teacher, if it is one.

    Raises:
        KDError: the runs have different test rows, or the rows on disk are others.
    """
    splits = rows_of_run(runs[0])
    for run in (*runs, *others):
        if (run.environment().get("data") or {}).get("test") != splits.counts["splits"]["test"]["sha256"]:
            raise KDError(
                f"expected the test rows of '{runs[0].path}' on disk and in every run of the cascade, found others in "
                f"'{run.path}'; give texts that no run has seen with --on FILE"
            )
    for run in runs:
        run.record_test_read(command="kd cascade")  # kd report counts how often the test rows were read
    rows = np.random.default_rng(0).permutation(len(splits.test))
    texts, labels = list(splits.test["text"]), labels_of(splits.test)
    return Texts("test", texts, labels, np.sort(rows[: len(rows) // 2]), np.sort(rows[len(rows) // 2 :]))


def of_file(
    path: Path, text: str, label: str | None, names: Sequence[str], encoding: str, runs: Sequence[RunDirectory]
) -> Texts:
    """Return the rows of a file, all of which choose the threshold. Labels are read where it has them.

    Texts that a run was trained or selected on are left out, and so are rows without a text.

    Raises:
        KDError: the file cannot be read, or has no other rows.
    """
    rows = read_rows(path, Reading(encoding, wanted=(text, label) if label else (text,)))
    rows.require(text, "--text")
    reader, seen = LabelReader(names), keys_seen(runs)
    texts, codes, empty, known = [], [], 0, 0
    for line, row in rows:
        if unusable(row.get(text)):
            empty += 1
        elif text_keys(row[text])[1] in seen:
            known += 1
        else:
            texts.append(row[text])
            codes.append(reader.read(row.get(label) if label else None, path.name, line))
    if left := empty + rows.malformed.count + known:
        log.warning("%d rows of %s are left out; a run was trained or selected on %d of them", left, path, known)
    if not texts:
        unseen = " that no run was trained on" if runs else ""
        raise KDError(f"expected texts in the column {text!r} of {path}{unseen}, found none; give another file")
    ids, numbers = reader.finish()[1], np.array(codes)
    labels = np.where(numbers == IGNORED_LABEL, IGNORED_LABEL, ids[np.maximum(numbers, 0)])
    return Texts(path.name, texts, labels, np.arange(len(texts)), np.empty(0, dtype=int))
