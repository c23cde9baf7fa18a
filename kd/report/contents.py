"""The tables of one test set."""

from __future__ import annotations

import numpy as np

from kd.report.arms import TITLES, Arm, deviation, mean
from kd.report.audits import audits
from kd.report.calibration import calibration, fit_temperature
from kd.report.cascades import cascades
from kd.report.comparisons import comparisons
from kd.report.evaluations import evaluations
from kd.report.explanations import explanations
from kd.report.runs import Split
from kd.report.study import Study
from kd.report.tables import EMPTY, Cell, Table, number, percent, points, probability
from kd.report.verdicts import Comparison
from kd.report.words import METRICS, capital, listed, millions, plural

HOW_TO_READ = (
    "Points: difference in test {metric}, in percentage points, seed by seed and row by row. {tests}"
    "The interval is at the level at which Holm's procedure tests the comparison: it excludes 0 exactly where the "
    "verdict is better or worse. Few seeds give a poor estimate of their spread: with three seeds and many "
    "comparisons, only large differences are decided. To decide: the number of test rows, or of seeds, with which a "
    "difference of the size seen is found with a probability of 80 % at the same level (Connor 1987)."
)
TWO_TESTS = (
    "Rows p: McNemar's exact test on the rows, with all seeds of a row together; the last column has it for each seed "
    "by itself. Bootstrap p: over seeds and rows. The larger of the two decides, after Holm's correction over the "
    "comparisons of the table. "
)
ONE_TEST = (
    "The bootstrap over seeds and rows decides, after Holm's correction over the comparisons of the table; the metric "
    "is written as a mean over rows by the influence of each row. "
)


def tables(study: Study) -> list[Table]:
    """Return all tables for which these runs have data."""
    families = [(family, capital(TITLES[family]), found, "") for family, found in study.comparisons.items()]
    if study.against_best:
        title = "Differences from the best by validation"
        families.append(("best", title, study.against_best, ", the best by validation"))
    words = {"metric": METRICS[study.metric], "tests": TWO_TESTS if study.metric == "accuracy" else ONE_TEST}
    notes = [HOW_TO_READ.format(**words)]
    compared = [comparison(*family, [] if place else notes) for place, family in enumerate(families)]
    return [
        results(study),
        *compared,
        costs(study),
        *filter(None, [fitting(study), fidelity(study), calibrations(study)]),
        *filter(None, [of_command(study) for of_command in (cascades, evaluations, explanations, audits, comparisons)]),
    ]


def results(study: Study) -> Table:
    """Tabulate the metric over seeds, what is retained of the teacher's, and the closed gap."""
    rows = [
        [
            Cell(arm.name),
            Cell("–") if arm.method == "teacher" else seeds_cell(arm.seeds),
            percent(arm.validation),
            percent(arm.score),
            percent(deviation(arm.scores)),
            bounds(study.judge.interval(arm)),
            percent(1.0 if arm.method == "teacher" else arm.retained),
            percent(recovered_gap(study, arm), 0),
        ]
        for arm in (*study.teachers, *study.arms)
    ]
    notes = [
        f"Validation and test: {METRICS[study.metric]}. Means over seeds, in per cent; ± is the standard deviation "
        f"over seeds (n − 1). {study.rows:,} test rows. "
        "The 95 % interval: with several seeds from the bootstrap over seeds and test rows; with one seed "
        f"{'Wilson' if study.metric == 'accuracy' else 'the bootstrap'}'s over the rows, which does not include the "
        f"variation between seeds. Retained: {METRICS[study.metric]} divided by the teacher's. Gap closed: "
        "(student − supervised) / (teacher − supervised), where supervised is the matched baseline.",
    ]
    marked = None
    if study.best:
        marked = len(study.teachers) + study.arms.index(study.best)
        notes.append(f"Highlighted: {study.best.name}, the best by validation.")
    columns = ["model", "seeds", "validation", "test", "±", "95 % interval", "retained", "gap closed"]
    return Table("results", "Results", columns, rows, notes, ("model", "seeds"), marked)


def metrics(study: Study) -> Table:
    """Tabulate every metric on the test rows."""
    rows = [
        [Cell(arm.name), *(percent(arm.mean("test", name)) for name in METRICS)]
        for arm in (*study.teachers, *study.arms)
    ]
    notes = [
        "On the test rows, means over seeds, in per cent. AUROC: of several classes the mean of one against the rest."
    ]
    lacking = [words for place, words in enumerate(METRICS.values(), 1) if any(row[place] == EMPTY for row in rows)]
    if lacking:
        notes.append(f"An empty cell of {listed(lacking)}: an early kd trained the run and did not measure it.")
    return Table("metrics", "All metrics", ["model", *METRICS.values()], rows, notes)


def recovered_gap(study: Study, arm: Arm) -> float | None:
    """Return (accuracy - supervised) / (teacher - supervised) over common seeds; None if the teacher is no better."""
    gain, teacher = study.gain(arm), arm.teacher_score
    if gain is None or teacher is None:
        return None
    supervised = float(np.mean([gain.pair.other.run_of(seed).values.mean() for seed in gain.pair.seeds]))
    return gain.difference / (teacher - supervised) if teacher > supervised else None


def comparison(name: str, title: str, family: list[Comparison], of_other: str, how: list[str]) -> Table:
    """Tabulate one family of comparisons; ``how`` explains how to read it."""
    rows = [
        {
            "model": Cell(one.pair.arm.name),
            "against": Cell(one.pair.other.name),
            "seeds": seeds_cell(one.pair.seeds),
            "points": points(one.difference),
            "±": percent(one.std),
            "interval": bounds(one.interval, sign="+"),
            "verdict": Cell(one.verdict),
            "p (Holm)": probability(one.adjusted),
            "to decide": Cell(one.needed),
            "rows p": probability(one.rows.p_value) if one.rows else EMPTY,
            "bootstrap p": probability(one.spread.p_value),
            "rows p by seed": Cell(", ".join(probability(test.p_value).text for test in one.seed_tests)),
        }
        for one in family
    ]
    notes = [f"{plural(len(family), 'comparison')}, corrected together.", *how]
    idle = {"±", "rows p by seed"} if all(len(one.pair.seeds) == 1 for one in family) else set()
    idle |= {"to decide"} if not any(one.needed for one in family) else set()
    idle |= {"rows p", "rows p by seed"} if not any(one.rows for one in family) else set()
    if len(others := {one.pair.other.name for one in family}) == 1:
        idle.add("against")
        notes.insert(0, f"Each is compared with {others.pop()}{of_other}.")
    columns = [column for column in rows[0] if column not in idle]
    cells = [[row[column] for column in columns] for row in rows]
    return Table(name, title, columns, cells, notes, ("model", "against", "seeds", "verdict", "to decide"))


def costs(study: Study) -> Table:
    """Tabulate size, speed, time and energy."""
    rows = [[Cell(arm.name), *cost_cells(arm)] for arm in (*study.teachers, *study.arms)]
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
    trained = sum(run.metrics["training_seconds"] or 0 for run in study.trainings)
    lines = [f"All {plural(len(study.trainings), 'training')} together took {trained:,.0f} s."]
    for teacher in study.teachers:
        tuned, labelled = (teacher.first.metrics[f"{name}_seconds"] for name in ("training", "labelling"))
        first = f"fine-tuned in {tuned:,.0f} s" if tuned is not None else "ready, not fine-tuned here"
        second = f"labelled the training rows in {labelled:,.1f} s" if labelled else "labelling time not recorded"
        lines.append(f"The {teacher.name}: {first}; {second}. Both are done once for all runs that share them.")
    measured = [run.metrics["energy"] for run in study.trainings if run.metrics.get("energy")]
    if not measured:
        return [*lines, "Energy: not measured, no counter of the hardware can be read."]
    sources = ", ".join(sorted({source for one in measured for source in one["sources"]}))
    total = sum(one["joules"] for one in measured)
    return [
        *lines,
        f"Energy: {total / 1000:,.1f} kJ ({total / 3.6e6:.3f} kWh) in the {plural(len(measured), 'training')} that "
        f"measured it, read from {sources}. It covers the whole device, with other processes.",
    ]


def fitting(study: Study) -> Table | None:
    """Tabulate the accuracy on training rows beside that on validation, and what each arm's runs say of it."""
    rows, said = [], dict[str, str]()
    for arm in study.arms:
        verdicts = [
            part.metrics["fitting"] for run in arm.runs for part in run.trainings if part.metrics.get("fitting")
        ]
        if not verdicts:
            continue
        words, epochs = [one["verdict"] for one in verdicts], [one for one in verdicts if one.get("best_epoch")]
        most = max(dict.fromkeys(words), key=words.count)
        said |= {} if most == "neither" else {arm.name: next(o["sentence"] for o in verdicts if o["verdict"] == most)}
        count = f" ({words.count(most)} of {len(words)})" if words.count(most) < len(words) else ""
        per_row = mean(arm.first.metrics["parameters"]["total"] / max(1, one["rows"]) for one in verdicts)
        rows.append(
            [
                Cell(arm.name),
                Cell(f"{most}{count}"),
                percent(mean(one["train_accuracy"] for one in verdicts)),
                points(mean(one["gap"] for one in verdicts)),
                number(mean(one["best_epoch"] for one in epochs), 1),
                number(mean(one["epochs"] for one in epochs), 1),
                number(per_row, 0),
            ]
        )
    if not rows:
        return None
    notes = [
        "Train: accuracy on up to 2,000 training rows with the weights of the run, in per cent. Gap: points above the "
        "accuracy on validation. Overfitting: a gap of 10 points or more, beyond two standard errors. Underfitting: "
        "the accuracy on training rows is hardly above the share of the most frequent label, or the last epoch was "
        "still the best. Means over seeds.",
        *(f"{capital(name)}, one run: {sentence}" for name, sentence in list(said.items())[:3]),
        *([f"{len(said) - 3} more settings over- or underfit; their runs say what to try."] if len(said) > 3 else []),
    ]
    columns = ["model", "fit", "train", "gap", "best epoch", "epochs", "parameters a row"]
    return Table("fitting", "Over- and underfitting", columns, rows, notes, ("model", "fit"))


def fidelity(study: Study) -> Table | None:
    """Tabulate the agreement with the teacher, where it is right and where it is wrong."""
    rows = [
        [Cell(arm.name), *map(percent, parts), number(arm.mean("test", "kl"), 3)]
        for arm in study.arms
        if (parts := agreement_parts(arm))
    ]
    if not rows:
        return None
    note = (
        "Test rows, in per cent, to which the student gives the teacher's label: of all rows, of those where the "
        "teacher is right, of those where it is wrong (there, agreement is a copied mistake). KL: mean KL(teacher ‖ "
        "student) in nats. Means over seeds. A supervised student agrees too, where both are right."
    )
    columns = ["model", "all rows", "teacher right", "teacher wrong", "KL"]
    return Table("fidelity", "Agreement with the teacher", columns, rows, [note])


def agreement_parts(arm: Arm) -> list[float | None]:
    """Return the agreement on all rows, where the teacher is right, and where it is wrong; means over seeds.

    A part without rows is None. Without outputs of a teacher there are no parts.
    """
    found = []
    for run in arm.runs:
        if teacher := run.test.teacher:
            same, right = run.test.predicted == teacher.predicted, teacher.correct
            found.append([float(rows.mean()) if len(rows) else None for rows in (same, same[right], same[~right])])
    return [mean(parts) for parts in zip(*found, strict=True)]


def calibrations(study: Study) -> Table | None:
    """Tabulate ECE, NLL and Brier score before and after temperature scaling on validation."""
    rows = []
    for arm in (*study.teachers, *study.arms):
        if known := [scaled(run.validation, run.test) for run in arm.runs if run.validation]:
            fitted, ece, nll, brier, ece_after, nll_after, brier_after = np.mean(known, axis=0)
            others = [number(value, 3) for value in (nll, nll_after, brier, brier_after)]
            rows.append([Cell(arm.name), number(fitted), percent(ece), percent(ece_after), *others])
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


def scaled(validation: Split, test: Split) -> np.ndarray:
    """Return ``[7]``: fitted temperature; ECE, NLL, Brier before; the same after."""
    fitted = fit_temperature(validation.logits, validation.labels)
    return np.array([fitted, *(figure for t in (1.0, fitted) for figure in calibration(test.logits, test.labels, t))])


def cost_cells(arm: Arm) -> list[Cell]:
    """Show parameters, parameters without embeddings, bytes, latency, time and energy; means over seeds."""
    parameters, size = arm.first.metrics.get("parameters"), arm.mean("model_bytes") or 0.0
    if not parameters:  # a teacher that is a file
        return [EMPTY] * 7
    joules = arm.mean("energy", "joules")
    return [
        *(Cell(millions(parameters[name]), parameters[name]) for name in ("total", "without_embeddings")),
        Cell(f"{size / 1e6:.1f}", size),
        *(number(arm.mean("latency", name)) for name in ("p50_ms", "p95_ms")),
        number(arm.mean("training_seconds"), 0 if arm.method == "teacher" else 1),
        EMPTY if joules is None else Cell(f"{joules / 1000:.2f}", joules),
    ]


def seeds_cell(seeds: tuple[int, ...]) -> Cell:
    """List the seeds; more than three consecutive numbers as first–last."""
    run_on = len(seeds) > 3 and seeds == tuple(range(seeds[0], seeds[-1] + 1))
    return Cell((f"{seeds[0]}–{seeds[-1]}" if run_on else ", ".join(map(str, seeds))) + f" (n = {len(seeds)})")


def bounds(interval: tuple[float, float], sign: str = "") -> Cell:
    low, high = (percent(bound, sign=sign).text for bound in interval)
    return Cell(f"[{low}, {high}]", tuple(map(float, interval)))
