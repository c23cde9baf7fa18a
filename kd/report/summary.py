"""The plain-language top of the page: what distillation brought, and whether it is decided."""

from __future__ import annotations

from typing import NamedTuple

from kd.report.arms import TITLES, Arm
from kd.report.contents import recovered_gap
from kd.report.study import Study
from kd.report.verdicts import Comparison
from kd.report.words import listed, plural

DECIDED = {
    "better": "That is decided: other test rows and other seeds would be expected to show it too.",
    "worse": "That is decided: it did worse than the student alone.",
    "not decided": "That is not decided by this test set: a difference of this size may be chance.",
}


class Fact(NamedTuple):
    """A figure to set large, and what it is."""

    value: str
    meaning: str


def sentences(study: Study) -> list[str]:
    """Of one test set."""
    taught = study.best_taught or next((arm for arm in study.arms if not arm.supervised), None)
    if taught is None:
        return [
            "No run here was taught by a teacher or by peers: there is nothing that distillation could have brought."
        ]
    brought = study.brought(taught)
    by_validation = taught is study.best_taught
    chosen = (
        f"Of what was taught, validation chose {taught.name}"
        if by_validation
        else f"{taught.name[0].upper()}{taught.name[1:]}"
    )
    said = [f"{chosen}: {100 * taught.accuracies.mean():.1f} % of {study.rows:,} test rows are right{over(taught)}."]
    if not by_validation:
        said.append("The runs kept no figures of the validation split, so nothing could be chosen by it.")
    said += [*difference(brought), *teacher_and_gap(study, taught)] if brought else without_baseline(study, taught)
    if study.best is not None and study.best is not taught:
        best = "the student alone" if study.best.name == "alone" else study.best.name
        said.append(f"Of all runs validation prefers {best}.")
    family = [one for title in (TITLES[0], TITLES[3]) for one in study.comparisons.get(title, [])]
    if len(family) > 1:
        words = [f"{sum(one.verdict == word for one in family)} {word}" for word in DECIDED]
        said.append(f"Of all {plural(len(family), 'comparison')} with a matched baseline: {listed(words)}.")
    return said


def over(arm: Arm) -> str:
    return f", on the mean of {plural(len(arm.runs), 'seed')}" if len(arm.runs) > 1 else ", with one seed"


def difference(brought: Comparison) -> list[str]:
    """What transfer brought, and the verdict."""
    low, high, gained = (signed(value) for value in (*brought.interval, brought.difference))
    several = len(brought.pair.seeds) > 1
    if low == high:
        return ["The student alone is right and wrong on the same test rows: nothing can be said of a difference."]
    verdict = DECIDED[brought.verdict]
    if not several:
        verdict = verdict.replace("other test rows and other seeds", "other test rows")
        verdict += " One seed tells nothing of the luck of a start."
    return [
        f"Over the same student trained alone on the same data, budget and {'seeds' if several else 'seed'} that is "
        f"{gained} points (interval {low} to {high}). {verdict}"
    ]


def teacher_and_gap(study: Study, taught: Arm) -> list[str]:
    """How far it is from the teacher."""
    teacher = study.teacher_accuracy(taught)
    if not teacher:
        return []
    gap = recovered_gap(study, taught)
    closed = "closes none" if gap is not None and gap <= 0 else f"closes {100 * gap:.0f} %" if gap is not None else ""
    kept = f"It keeps {100 * taught.accuracies.mean() / teacher:.1f} % of its teacher's {100 * teacher:.1f} %"
    if closed:
        return [f"{kept} and {closed} of the gap between the student alone and the teacher."]
    return [f"{kept}. The student alone is no worse than this teacher: there is no gap to close."]


def without_baseline(study: Study, taught: Arm) -> list[str]:
    """Why nothing can be said of what transfer brought."""
    for missing in study.missing:
        if taught.name in missing.arms:
            how = " The command that trains it stands below." if missing.command else ""
            return [f"What its teacher brought cannot be said: there is {missing}.{how}"]
    return ["What its teacher brought cannot be said: there is no matched baseline."]


def signed(share: float) -> str:
    """In percentage points."""
    return f"{100 * share:+.1f}".replace("-", "−")


def facts(study: Study) -> list[Fact]:
    """A handful of figures of the chosen arm."""
    taught = study.best_taught
    if taught is None:
        return []
    found = [Fact(f"{100 * taught.accuracies.mean():.1f} %", f"test accuracy of {taught.name}")]
    if brought := study.brought(taught):
        found.append(Fact(signed(brought.difference), f"points over the student alone: {brought.verdict}"))
    if teacher := study.teacher_accuracy(taught):
        found.append(Fact(f"{100 * taught.accuracies.mean() / teacher:.1f} %", "of the teacher's accuracy"))
    if "teacher_cost" in taught.first.metrics and taught.first.environment["teacher"]:
        cost = study.teacher_cost(taught.first)
        smaller = cost["parameters"]["total"] / taught.first.metrics["parameters"]["total"]
        faster = cost["latency"]["p50_ms"] / taught.over_seeds(lambda run: run.metrics["latency"]["p50_ms"]).mean()
        found.append(times(smaller, "fewer parameters than the teacher", "more parameters than the teacher"))
        found.append(times(faster, *(f"{how} than the teacher, one text on the CPU" for how in ("faster", "slower"))))
    return found


def times(ratio: float, above: str, below: str) -> Fact:
    """A ratio as a factor of 1 or more, in the words for its side of 1."""
    return Fact(f"{ratio:.3g}×", above) if ratio >= 1 else Fact(f"{1 / ratio:.3g}×", below)
