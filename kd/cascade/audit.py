"""Watch a cascade in use: ask the teacher about a sample of all texts, and raise an alarm where something drifts."""

from __future__ import annotations

import json
import logging
import os
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from scipy.stats import chi2_contingency

from kd.cascade.threshold import lower_bound
from kd.data.files import read_rows
from kd.data.splits import text_keys
from kd.errors import KDError
from kd.measure.significance import accuracy_interval

log = logging.getLogger(__name__)

WINDOW = 2000
"""Audited texts of which the running agreement is the mean."""
CHECKED = 1000
"""Texts after which the inputs are compared with the calibration rows; each text is in one comparison."""
RARE = 1e-4
"""The p-value of a comparison of the inputs that raises an alarm: once in 10,000 comparisons without a drift."""
EVIDENCE = 1000.0
"""The alarm of the agreement: without a drift, the mean number of audited texts until it is at least this."""
LARGEST_FILE = 64 * 2**20
"""Bytes of the answers file. Its texts have their keys in memory, which is limited by this too."""


@dataclass
class Audit:
    """Samples texts, keeps the running agreement, and raises alarms.

    A text is sampled before it is known who answers it. So the share of sampled texts on which cascade and teacher
    agree estimates the very agreement that the cascade promises; where the teacher answers, it agrees at no cost.

    `count` and `samples` may be called in one thread, and `compare` in another.

    Args:
        record: the content of ``cascade.json``.
        share: of texts that are sampled.
        answers_file: a JSONL file to which the disagreements are added, with their texts; None keeps no text.
        seed: of the sampling.

    Raises:
        KDError: the share is not in (0, 1], or the file holds something else.
    """

    record: Mapping[str, Any]
    share: float
    answers_file: Path | None = None
    seed: int | None = None
    window: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    inputs_drift: bool = False
    agreement_drift: bool = False
    unkept: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise KDError(f"expected a share of audited texts above 0 and up to 1, got {self.share:g}; give 0.02 or so")
        calibration = self.record["calibration"]
        bound = lower_bound(calibration["differing"], calibration["rows"], self.record["confidence"])
        self.floor = self.record["target"] if self.record["kind"] == "agreement" else max(0.5, bound)
        self._expected = np.array(calibration["answered"])
        self._found, self._evidence = np.zeros_like(self._expected), 1.0
        self._random, self._kept = random.Random(self.seed), set[bytes]()
        if self.answers_file:
            self._kept = _texts_in(self.answers_file)

    def samples(self) -> bool:
        """Decide whether the teacher is asked about the next text, whoever answers it."""
        return self._random.random() < self.share

    def count(self, stage: int) -> None:
        """Count who answered a text; after `CHECKED` texts compare the counts with those of the calibration rows."""
        self._found[stage] += 1
        if self._found.sum() == CHECKED:
            counts = np.stack([self._found, self._expected])
            counts = counts[:, counts.any(axis=0)]
            self.inputs_drift = counts.shape[1] > 1 and bool(chi2_contingency(counts).pvalue < RARE)
            self._found[:] = 0

    def compare(self, text: str, answer: str, teacher: Mapping[str, float]) -> bool:
        """Compare the answer to a sampled text with the teacher's probabilities; return whether they agree.

        The evidence is a CUSUM of likelihood ratios: twice the allowed share of disagreements against that share.
        Where the promise holds, a factor has a mean of at most 1, so that false alarms are as rare as `EVIDENCE` says.
        An alarm ends when the texts that follow have taken all evidence back.

        Source: Lorden 1971, https://doi.org/10.1214/aoms/1177693055
        """
        agrees, allowed = answer == max(teacher, key=teacher.__getitem__), 1 - self.floor
        worse = min(2 * allowed, (1 + allowed) / 2)
        self.window.append(agrees)
        factor = (1 - worse) / (1 - allowed) if agrees else worse / allowed
        self._evidence = min(max(self._evidence, 1.0) * factor, EVIDENCE)
        self.agreement_drift = self._evidence > 1 if self.agreement_drift else self._evidence == EVIDENCE
        if not agrees and self.answers_file:
            self._keep(self.answers_file, text, teacher)
        return agrees

    def _keep(self, path: Path, text: str, teacher: Mapping[str, float]) -> None:
        """Add a text to the answers file. One that does not fit or cannot be written is counted; the audit goes on."""
        if (key := text_keys(text)[0]) in self._kept:
            return
        line = json.dumps({"text": text, "probabilities": dict(teacher)}).encode() + b"\n"
        try:
            with _opened(path) as file:
                if size := file.seek(0, os.SEEK_END):
                    file.seek(size - 1)
                    line = line if file.read(1) == b"\n" else b"\n" + line
                if size + len(line) > LARGEST_FILE:
                    raise OSError(f"it would have more than {LARGEST_FILE} bytes")
                file.write(line)
            self._kept.add(key)
        except OSError as error:
            if not self.unkept:
                log.warning("texts are no longer kept in '%s': %s", path, error)
            self.unkept += 1

    def agreement(self) -> tuple[float, float, float] | None:
        """Return the agreement on the last `WINDOW` sampled texts and its 95 % interval; None before the first."""
        if not (window := np.array(list(self.window))).size:  # a copy, since another thread may add to it
            return None
        return (float(window.mean()), *accuracy_interval(window))

    def alarms(self) -> list[str]:
        """Return a sentence for each alarm."""
        found = []
        if self.agreement_drift:
            found.append(f"the agreement with the teacher has fallen below {self.floor:.1%}; run kd cascade again")
        if self.inputs_drift:
            found.append(
                "the texts differ from those that chose the threshold: other shares are answered by each model"
            )
        return found


def _texts_in(path: Path) -> set[bytes]:
    """Return the keys of the texts in an answers file. It is made, so that a wrong path is an error at the start."""
    if path.suffix.lower() != ".jsonl":
        raise KDError(f"expected a file for texts whose name ends with .jsonl, got '{path}'; rename it")
    _opened(path).close()
    if not path.stat().st_size:
        return set()
    rows = read_rows(path)
    rows.require("text", "the answers file")
    return {text_keys(row["text"])[0] for _, row in rows}


def _opened(path: Path) -> IO[bytes]:
    """Open a file to add to it. If it is new, only its owner may read it, because it holds texts of users."""
    return open(path, "a+b", opener=partial(os.open, mode=0o600))
