"""Test the promise of `kd cascade`: over many random samples, how often does the threshold break it?

    python benchmarks/cascade.py RUN [--target 0.95] [--confidence 0.95] [--samples 200]

RUN is a finished run with a teacher. Its validation and test rows, with the logits of both, are the population. Two
experiments choose a threshold in each of the samples:

* drawn: the calibration rows are drawn with replacement, so that the true agreement at a threshold is known: that of
  the whole population. A broken promise is a true agreement below the target; it may happen in 1 - confidence of the
  samples.
* halves: a random half of the rows chooses, the other half measures. The other half has a noise of its own, so that it
  falls below the target more often, also where the promise holds.

The naive rule takes the loosest threshold whose agreement on the calibration rows is the target, without a bound.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from kd.cascade.threshold import NOBODY, Outcomes, choose, confidence_of, thresholds
from kd.report.calibration import fit_temperature
from kd.run import predictions
from kd.run.directory import RunDirectory


def population(run: RunDirectory) -> Outcomes:
    """Return what the student and the teacher of a run say about its validation and test rows."""
    splits = predictions.of_run(run, run.metrics(), run.environment(), {})
    fitted = fit_temperature(splits["validation"].logits, splits["validation"].labels)
    logits = np.concatenate([split.logits for split in splits.values()])
    teacher = np.concatenate([split.teacher.predicted for split in splits.values()])
    labels = np.concatenate([split.labels for split in splits.values()])
    answers = np.stack([logits.argmax(axis=1), teacher])
    return Outcomes(confidence_of(logits / fitted)[None], answers, labels, logits.shape[1])


def naive(outcomes: Outcomes, target: float, confidence: float) -> float:
    """Return the loosest threshold at which the sample itself reaches the target."""
    chosen = NOBODY
    for threshold in thresholds(outcomes.classes):
        if outcomes.differing(threshold) > (1 - target) * len(outcomes.labels):
            break
        chosen = float(threshold)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    everything = population(RunDirectory.finished(options.run))
    rows = len(everything.labels)
    half = rows // 2
    title = f"{options.samples} samples of {half} of {rows} rows, agreement >= {options.target:g}"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for head in ("experiment", "rule", "below the target %", "mean agreement %", "mean share of the student %"):
        table.add_column(head, justify="left" if head in ("experiment", "rule") else "right")
    for experiment in ("drawn", "halves"):
        for rule in (choose, naive):
            generator, found, shares = np.random.default_rng(0), [], []
            for _ in range(options.samples):
                if experiment == "drawn":
                    sample, measured = everything.take(generator.integers(rows, size=half)), everything
                else:
                    order = generator.permutation(rows)
                    sample, measured = everything.take(order[:half]), everything.take(order[half:])
                threshold = rule(sample, options.target, options.confidence)
                found.append(1 - measured.differing(threshold) / len(measured.labels))
                shares.append((measured.answered_by(threshold) == 0).mean())
            below = 100 * np.mean(np.array(found) < options.target)
            name = {"choose": "kd cascade", "naive": "naive"}[rule.__name__]
            table.add_row(
                experiment, name, f"{below:.1f}", f"{100 * np.mean(found):.2f}", f"{100 * np.mean(shares):.1f}"
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
