"""The sentences and figures at the top of the page: the gain of distillation, and whether it is decided."""

from __future__ import annotations

from typing import Any

import numpy as np

from kd.report.arms import Arm
from kd.report.contents import recovered_gap
from kd.report.folds import pooled_sentence
from kd.report.runs import figure
from kd.report.study import Study
from kd.report.tables import points
from kd.report.verdicts import Comparison
from kd.report.words import METRICS, capital, listed, plural

DECIDED = {
    "better": "This is decided: other test rows and other seeds are expected to show a gain too.",
    "worse": "This is decided: it is worse than the supervised student.",
    "not decided": "This is not decided by this test set: a difference of this size may be chance.",
}

NO_BAG = "There is no bag of n-grams to compare with, the baseline that a student has to beat. This command trains one:"
MOST_NAMED = 4
NEEDED = ("To decide a difference of the size seen (in 80 % of such studies) it would take:",)


def sentences(study: Study) -> list[str]:
    """Return the summary of one test set."""
    command = study.bag_command
    pooled = pooled_sentence(study.runs[0])
    return [
        *([pooled] if pooled else []),
        *of_transfer(study),
        *against_bag(study),
        *([f"{NO_BAG} {command}"] if command else []),
    ]


def against_bag(study: Study) -> list[str]:
    """Say how many students beat the bag of n-grams, and name those that do not."""
    family = study.comparisons.get("bag", [])
    if not family:
        return []
    bag, behind = family[0].pair.other, [one for one in family if one.verdict != "better"]
    beaten = len(family) - len(behind)
    lines = [f"The bag of n-grams has {100 * bag.score:.1f} % without any network; {beaten} of {len(family)} beat it."]
    for one in sorted(behind, key=lambda one: -one.difference)[:MOST_NAMED]:
        word = "is worse than it" if one.decided else "does not beat it: this is not decided"
        shown = f"{100 * one.pair.arm.score:.1f} %, {points(one.difference).text} points"
        lines.append(f"{capital(one.pair.arm.name)} {word} ({shown}).")
    if len(behind) > MOST_NAMED:
        lines.append(f"{len(behind) - MOST_NAMED} more do not beat it: see the table.")
    return lines


def needed(study: Study) -> list[str]:
    """Say how many rows or seeds would decide the differences that are not decided, if they are as large as seen."""
    family = [one for found in study.comparisons.values() for one in found if one.needed]
    lines = [f"  {one.pair.arm.name} - {one.pair.other.name}: {one.needed}" for one in family[:MOST_NAMED]]
    if len(family) > MOST_NAMED:
        lines.append(f"  {len(family) - MOST_NAMED} more: see the tables of the page.")
    return [*NEEDED, *lines] if lines else []


def of_transfer(study: Study) -> list[str]:
    """Say what the best student with a teacher or peers gained."""
    taught = study.best_taught or next((arm for arm in study.arms if arm.method != "supervised"), None)
    if taught is None:
        return ["No run here learnt from a teacher or from peers: there is no gain of distillation to report."]
    gain, seeds = study.gain(taught), len(taught.runs)
    over = f" (mean of {plural(seeds, 'seed')})" if seeds > 1 else " (one seed)"
    chosen = taught is study.best_taught
    who = f"Among the students with a teacher or peers, validation chose {taught.name}" if chosen else taught.name
    right = f"% of {study.rows:,} test rows are correct"
    right = right if study.metric == "accuracy" else f"% {METRICS[study.metric]} on {study.rows:,} test rows"
    lines = [f"{capital(who)}: {100 * taught.score:.1f} {right}{over}."]
    if not chosen:
        lines.append("The runs kept no figures of the validation split, so it could not choose.")
    lines += [*difference(gain), *teacher_and_gap(study, taught)] if gain else without_baseline(study, taught)
    if study.best is not None and study.best is not taught:
        best = "the supervised student" if study.best.name == "supervised" else study.best.name
        lines.append(f"Among all runs, validation prefers {best}.")
    family = study.over_baselines
    if len(family) > 1:
        words = [f"{sum(one.verdict == word for one in family)} {word}" for word in DECIDED]
        lines.append(f"All {plural(len(family), 'comparison')} with a matched baseline: {listed(words)}.")
    return lines


def difference(gain: Comparison) -> list[str]:
    """Return the gain over the baseline, and the verdict."""
    low, high, gained = (points(value).text for value in (*gain.interval, gain.difference))
    several = len(gain.pair.seeds) > 1
    if low == high:
        return ["The supervised student is correct on the same test rows: no difference can be measured."]
    verdict = DECIDED[gain.verdict]
    if gain.needed:
        verdict += f" To decide it takes {gain.needed}, if the difference is as large as seen."
    if not several:
        verdict = verdict.replace("other test rows and other seeds", "other test rows")
        verdict += " One seed does not show how much the result varies with the seed."
    return [
        f"That is {gained} points (interval {low} to {high}) over the supervised student with the same data, budget "
        f"and {'seeds' if several else 'seed'}. {verdict}"
    ]


def teacher_and_gap(study: Study, taught: Arm) -> list[str]:
    teacher = taught.teacher_score
    if not teacher:
        return []
    gap = recovered_gap(study, taught)
    kept = f"It keeps {100 * taught.score / teacher:.1f} % of its teacher's {100 * teacher:.1f} %"
    if gap is None:
        return [f"{kept}. The supervised student is no worse than this teacher: there is no gap to close."]
    closed = f"{100 * gap:.0f} %" if gap > 0 else "none"
    return [f"{kept} and closes {closed} of the gap between the supervised student and the teacher."]


def without_baseline(study: Study, taught: Arm) -> list[str]:
    """Say why the gain is unknown."""
    for missing in study.missing:
        if taught.name in missing.arms:
            how = " The command that trains it is given below." if missing.command else ""
            return [f"The gain over supervised training is unknown: there is {missing}.{how}"]
    return ["The gain over supervised training is unknown: there is no matched baseline."]


def facts(study: Study) -> list[tuple[str, str]]:
    """Return a few figures of the chosen arm, each with its meaning."""
    taught = study.best_taught
    if taught is None:
        return []
    found = [(f"{100 * taught.score:.1f} %", f"test {METRICS[study.metric]} of {taught.name}")]
    if gain := study.gain(taught):
        found.append((points(gain.difference).text, f"points over the supervised student: {gain.verdict}"))
    if teacher := taught.teacher_score:
        found.append((f"{100 * taught.score / teacher:.1f} %", f"of the teacher's {METRICS[study.metric]}"))
    if taught.first.teacher and figure(taught.first.metrics, "teacher_cost", "latency"):
        cost = study.teacher_cost(taught.first)
        smaller = cost["parameters"]["total"] / taught.first.metrics["parameters"]["total"]
        faster, remark = speedup(taught, cost)
        how = f"than the teacher, one text on the CPU{remark}"
        sides = [
            (smaller, "fewer parameters than the teacher", "more parameters than the teacher"),
            (faster, f"faster {how}", f"slower {how}"),
        ]
        found += [(f"{max(ratio, 1 / ratio):.3g}×", above if ratio >= 1 else below) for ratio, above, below in sides]
    return found


def speedup(taught: Arm, cost: dict[str, Any]) -> tuple[float, str]:
    """Return how many times as fast as its teacher the student is, and a remark if the two were not timed in turns."""
    in_turns = [run.metrics["speedup"]["ratio"] for run in taught.runs if "speedup" in run.metrics]
    if in_turns:
        return float(np.median(in_turns)), ""
    student = np.mean([run.metrics["latency"]["p50_ms"] for run in taught.runs])  # of a kd that did not time in turns
    return float(cost["latency"]["p50_ms"] / student), " (measured apart)"
