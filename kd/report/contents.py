"""The tables of one test set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kd.measure.significance import accuracy_interval
from kd.report.arms import TITLES, Arm, deviation
from kd.report.calibration import calibration, fit_temperature
from kd.report.runs import Run, Split
from kd.report.study import Study
from kd.report.tables import EMPTY, Cell, Table, number, percent, points, probability
from kd.report.verdicts import Comparison
from kd.report.words import capital, millions, plural

NAMES = dict(zip(TITLES, ("gain", "methods", "embeddings", "peers"), strict=True))
"""File names of the comparisons, by title."""

HOW_TO_READ = (
    "Points: difference in test accuracy, in percentage points, seed by seed and row by row. Rows p: McNemar's exact "
    "test on the rows, with all seeds of a row together; the last column has it for each seed by itself. Bootstrap p: "
    "over seeds and rows. The larger of the two decides, after Holm's correction over the comparisons of the table. "
    "The interval is at the level at which Holm's procedure tests the comparison: it excludes 0 exactly where the "
    "verdict is better or worse. Few seeds give a poor estimate of their spread: with three seeds and many "
    "comparisons, only large differences are decided."
)


def tables(study: Study) -> list[Table]:
    """Return all tables for which these runs have data."""
    families = [(NAMES[title], capital(title), family, "") for title, family in study.comparisons.items()]
    if study.against_best:
        title = "Differences from the best by validation"
        families.append(("best", title, study.against_best, ", the best by validation"))
    compared = [comparison(*family, first=not number) for number, family in enumerate(families)]
    return [results(study), *compared, costs(study), *filter(None, [fidelity(study), calibrations(study)])]


def results(study: Study) -> Table:
    """Tabulate accuracy over seeds, retained accuracy and closed gap."""
    rows = []
    for name, run in study.teachers:
        correct = run.test.teacher_correct
        validation = run.metrics.get("validation", {}).get("teacher", {}).get("accuracy")
        figures = run.metrics["test"].get("teacher", {})
        cells = (percent(validation), percent(float(correct.mean())), EMPTY, bounds(accuracy_interval(correct)))
        rows.append([Cell(name), Cell("–"), *cells, percent(figures.get("macro_f1")), percent(1.0), EMPTY])
    for arm in study.arms:
        mean = float(arm.accuracies.mean())
        teacher, gap = study.teacher_accuracy(arm), recovered_gap(study, arm)
        rows.append(
            [
                Cell(arm.name),
                seeds_cell(arm.seeds),
                percent(None if arm.validation is None else float(arm.validation.mean())),
                percent(mean),
                percent(deviation(arm.accuracies)),
                bounds(study.judge.interval(arm)),
                percent(mean_of(arm, lambda run: run.metrics["test"].get("macro_f1"))),
                percent(mean / teacher if teacher else None),
                percent(gap, 0),
            ]
        )
    notes = [
        f"Means over seeds, in per cent; ± is the standard deviation over seeds (n − 1). {study.rows:,} test rows. "
        "The 95 % interval: with several seeds from the bootstrap over seeds and test rows; with one seed Wilson's, "
        "which does not include the variation between seeds. Retained: accuracy divided by the teacher's. Gap closed: "
        "(accuracy − supervised) / (teacher − supervised), where supervised is the matched baseline.",
    ]
    marked = None
    if study.best:
        marked = len(study.teachers) + study.arms.index(study.best)
        notes.append(f"Highlighted: {study.best.name}, the best by validation.")
    columns = ["model", "seeds", "validation", "test", "±", "95 % interval", "macro F1", "retained", "gap closed"]
    return Table("results", "Results", columns, rows, notes, ("model", "seeds"), marked)


def recovered_gap(study: Study, arm: Arm) -> float | None:
    """Return (accuracy - supervised) / (teacher - supervised) over common seeds; None if the teacher is no better."""
    gain, teacher = study.gain(arm), study.teacher_accuracy(arm)
    if gain is None or teacher is None:
        return None
    supervised = float(np.mean([gain.pair.other.run_of(seed).test.correct.mean() for seed in gain.pair.seeds]))
    return gain.difference / (teacher - supervised) if teacher > supervised else None


def comparison(name: str, title: str, family: list[Comparison], of_other: str, first: bool) -> Table:
    """Tabulate one family of comparisons; the first table explains how to read them all."""
    rows = []
    for one in family:
        rows.append(
            [
                Cell(one.pair.arm.name),
                Cell(one.pair.other.name),
                seeds_cell(one.pair.seeds),
                points(one.difference),
                percent(one.std),
                bounds(one.interval, signed=True),
                Cell(one.verdict),
                probability(one.adjusted),
                probability(one.rows.p_value),
                probability(one.spread.p_value),
                Cell(", ".join(probability(test.p_value).text for test in one.seed_tests)),
            ]
        )
    notes = [f"{plural(len(family), 'comparison')}, corrected together.", *([HOW_TO_READ] if first else [])]
    columns = ["model", "against", "seeds", "points", "±", "interval", "verdict", "p (Holm)"]
    columns += ["rows p", "bootstrap p", "rows p by seed"]
    idle = {"±", "rows p by seed"} if all(len(one.pair.seeds) == 1 for one in family) else set()
    if len(others := {one.pair.other.name for one in family}) == 1:
        idle.add("against")
        notes.insert(0, f"Each is compared with {others.pop()}{of_other}.")
    kept = [place for place, column in enumerate(columns) if column not in idle]
    columns, rows = [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]
    return Table(name, title, columns, rows, notes, ("model", "against", "seeds", "verdict"))


def costs(study: Study) -> Table:
    """Tabulate size, speed, time and energy."""
    rows = []
    for name, run in study.teachers:
        cost = study.teacher_cost(run)
        rows.append([Cell(name), *size_cells([cost]), number(cost["training_seconds"], 0), *energy_cells([cost])])
    for arm in study.arms:
        figures = [run.metrics for run in arm.runs]
        rows.append([Cell(arm.name), *size_cells(figures), number(mean_of(arm, seconds), 1), *energy_cells(figures)])
    columns = ["model", "M parameters", "without embeddings", "MB", "p50 ms", "p95 ms", "training s", "energy kJ"]
    notes = [
        "M parameters: millions. MB: model file on disk, 10⁶ bytes. p50, p95: latency of one text on the CPU, without "
        "the tokenizer. Training: seconds from the first step to the last, mean over seeds.",
        *spent(study),
    ]
    if all(row[-1] == EMPTY for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table("costs", "Size, speed and cost", columns, rows, notes)


def spent(study: Study) -> list[str]:
    """Sum the costs of all runs; a teacher is counted once for all its runs."""
    trained = sum(filter(None, map(seconds, study.everything)))
    lines = [f"All {plural(len(study.everything), 'training')} together took {trained:,.0f} s."]
    for name, run in study.teachers:
        cost = study.teacher_cost(run)
        tuned, labelled = cost["training_seconds"], cost["labelling_seconds"]
        first = f"fine-tuned in {tuned:,.0f} s" if tuned is not None else "ready, not fine-tuned here"
        second = f"labelled the training rows in {labelled:,.1f} s" if labelled else "labelling time not recorded"
        lines.append(f"The {name}: {first}; {second}. Both are done once for all runs that share them.")
    measured = [run.metrics["energy"] for run in study.everything if run.metrics.get("energy")]
    if not measured:
        lines.append("Energy: not measured, no counter of the hardware can be read.")
    else:
        sources = sorted({source for one in measured for source in one["sources"]})
        total = sum(one["joules"] for one in measured)
        lines.append(
            f"Energy: {total / 1000:,.1f} kJ ({total / 3.6e6:.3f} kWh) in the {plural(len(measured), 'training')} that "
            f"measured it, read from {', '.join(sources)}. It covers the whole device, with other processes."
        )
    return lines


def fidelity(study: Study) -> Table | None:
    """Tabulate the agreement with the teacher, where it is right and where it is wrong."""
    rows = []
    for arm in study.arms:
        known = [run.test for run in arm.runs if run.test.teacher_logits is not None]
        if not known:
            continue
        parts = np.array([agreement_parts(split) for split in known])
        kl = mean_of(arm, lambda run: run.metrics["test"].get("kl"))
        shares = [percent(None if np.isnan(share) else float(share)) for share in nan_mean(parts)]
        rows.append([Cell(arm.name), *shares, number(kl, 3)])
    if not rows:
        return None
    note = (
        "Test rows, in per cent, to which the student gives the teacher's label: of all rows, of those where the "
        "teacher is right, of those where it is wrong (there, agreement is a copied mistake). KL: mean KL(teacher ‖ "
        "student) in nats. Means over seeds. A supervised student agrees too, where both are right."
    )
    return Table(
        "fidelity",
        "Agreement with the teacher",
        ["model", "all rows", "teacher right", "teacher wrong", "KL"],
        rows,
        [note],
    )


def agreement_parts(split: Split) -> tuple[float, float, float]:
    """Return the agreement on all rows, where the teacher is right, and where it is wrong; nan without such rows."""
    same = split.logits.argmax(axis=1) == split.teacher_logits.argmax(axis=1)
    right = split.teacher_correct
    part = lambda rows: float(rows.mean()) if len(rows) else np.nan  # noqa: E731
    return part(same), part(same[right]), part(same[~right])


def calibrations(study: Study) -> Table | None:
    """Tabulate ECE, NLL and Brier score before and after temperature scaling on validation."""
    rows = []
    for name, run in study.teachers:
        if run.validation is not None and run.validation.teacher_logits is not None:
            rows.append([Cell(name), *calibration_cells([scaled(run, teacher=True)])])
    for arm in study.arms:
        known = [scaled(run) for run in arm.runs if run.validation is not None]
        if known:
            rows.append([Cell(arm.name), *calibration_cells(known)])
    if not rows:
        return None
    note = (
        "On the test rows, means over seeds, before and after dividing the logits by a temperature that was fitted to "
        "each run's validation rows. ECE: expected calibration error in per cent, 15 equal bins of the confidence from "
        "1 / number of labels to 1. NLL: mean negative log-likelihood in nats. Brier: squared error of the "
        "probabilities, from 0 to 2."
    )
    columns = ["model", "fitted temperature", "ECE", "ECE after", "NLL", "NLL after", "Brier", "Brier after"]
    return Table("calibration", "Calibration", columns, rows, [note])


def scaled(run: Run, teacher: bool = False) -> np.ndarray:
    """Return ``[7]``: fitted temperature; ECE, NLL, Brier before; the same after."""
    logits = lambda split: split.teacher_logits if teacher else split.logits  # noqa: E731
    fitted = fit_temperature(logits(run.validation), run.validation.labels)
    test = logits(run.test), run.test.labels
    return np.array([fitted, *calibration(*test), *calibration(*test, fitted)])


def calibration_cells(figures: list[np.ndarray]) -> list[Cell]:
    fitted, ece, nll, brier, ece_after, nll_after, brier_after = np.mean(figures, axis=0)
    return [
        number(fitted),
        percent(ece),
        percent(ece_after),
        *(number(value, 3) for value in (nll, nll_after, brier, brier_after)),
    ]


def size_cells(costs: list[dict[str, Any]]) -> list[Cell]:
    """Show parameters, parameters without embeddings, bytes and latency; means over seeds."""
    total, bare = costs[0]["parameters"]["total"], costs[0]["parameters"]["without_embeddings"]
    mean = lambda name: [cost["latency"][name] for cost in costs if name in cost["latency"]]  # noqa: E731
    latencies = [number(float(np.mean(values)) if values else None) for values in (mean("p50_ms"), mean("p95_ms"))]
    size = float(np.mean([cost["model_bytes"] for cost in costs]))
    return [Cell(millions(total), total), Cell(millions(bare), bare), Cell(f"{size / 1e6:.1f}", size), *latencies]


def energy_cells(costs: list[dict[str, Any]]) -> list[Cell]:
    known = [cost["energy"]["joules"] for cost in costs if cost.get("energy")]
    return [Cell(f"{np.mean(known) / 1000:.2f}", float(np.mean(known))) if known else EMPTY]


def seconds(run: Run) -> float | None:
    return run.metrics["training_seconds"]


def mean_of(arm: Arm, figure: Callable[[Run], float | None]) -> float | None:
    values = arm.over_seeds(figure)
    return float(values.mean()) if len(values) else None


def nan_mean(parts: np.ndarray) -> list[float]:
    """Return column means without nan, as `np.nanmean` does, but without its warning for a column of nan."""
    return [float(column[~np.isnan(column)].mean()) if not np.isnan(column).all() else np.nan for column in parts.T]


def seeds_cell(seeds: tuple[int, ...]) -> Cell:
    """List the seeds; more than three consecutive numbers as first–last."""
    run_on = len(seeds) > 3 and seeds == tuple(range(seeds[0], seeds[-1] + 1))
    return Cell((f"{seeds[0]}–{seeds[-1]}" if run_on else ", ".join(map(str, seeds))) + f" (n = {len(seeds)})")


def bounds(interval: tuple[float, float], signed: bool = False) -> Cell:
    low, high = (f"{100 * bound:+.1f}" if signed else f"{100 * bound:.1f}" for bound in interval)
    return Cell(f"[{low}, {high}]".replace("-", "−"), tuple(map(float, interval)))
