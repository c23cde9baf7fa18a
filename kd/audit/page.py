"""The content of ``audit.json`` as tables, a figure, a page, and a sentence for the model card."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kd import __version__
from kd.audit.comparisons import Effect
from kd.report.document import Block, Document, Section
from kd.report.drawing import GRID, MUTED, SERIES, Figure, height_of_rows, legend_below, name_rows
from kd.report.tables import EMPTY, Cell, Table, number, percent, probability
from kd.report.words import listed, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOW_TO_READ = (
    "Difference: mean probability of the class for the group, minus that for the reference group, over texts that "
    "differ in the person alone; true and false positives: the difference of the rates of the two groups. Size: mean "
    "size of the differences of single pairs, which a name alone may cause. Alone: the same student without a teacher. "
    "The interval is at the level at which Holm's procedure tests the difference. The texts of a frame count as one; "
    "rates: Fisher's exact test and Newcombe's interval."
)
VERDICTS = (
    "Change: the student's difference minus that of the other model. None: neither has a bias. Brought in: the "
    "student has a bias that the other has not. Amplified: both have it, the student's is larger. Kept: both have it, "
    "and the change is not decided. Reduced: the other has it, and the student's is smaller. A bias or a change counts "
    "where p < 0.05, its interval excludes 0, and it is at least {least:g}."
)
LIMITS = (
    "The templates are in English, name two genders and a few first names of six origins, and are no complete list. "
    "An audit without a finding is no proof that there is no bias."
)


def title(one: Mapping[str, Any]) -> str:
    """Return the groups of a comparison and, for a rate, its name."""
    return f"{one['group']} − {one['reference']}" + (f", {one['measure']}" if "positives" in one["measure"] else "")


def signed(value: float) -> Cell:
    return Cell(f"{value:+.3f}".replace("-", "−"), value)


def interval(effect: Mapping[str, Any]) -> Cell:
    bounds = effect["low"], effect["high"]
    return Cell(f"{bounds[0]:+.3f} to {bounds[1]:+.3f}".replace("-", "−"), bounds)


def tables(content: Mapping[str, Any]) -> list[Table]:
    """Return the biases of each model, the changes with their verdicts, and the flips, where there are any."""
    named = lambda one, name: [Cell(title(one)), Cell(name)]  # noqa: E731
    columns = ("interval", "p")
    sizes = {
        (title(one), name): effect["difference"] for one in of(content, True) for name, effect in one["biases"].items()
    }
    biases = [
        [*named(one, name), *cells(effect), number(sizes.get((title(one), name)), 3)]
        for one in of(content)
        for name, effect in one["biases"].items()
    ]
    heading = f"Differences between groups, class {content['of_class']}"
    heads = ["groups", "model", "difference", *columns, "size"]
    found = [Table("biases", heading, heads, biases, [HOW_TO_READ], ("groups", "model"))]
    for name, heading, shown in (
        ("changes", "What transfer changed", of(content)),
        ("sizes", "What transfer changed in the size of single differences", of(content, True)),
    ):
        rows = [
            [*named(one, other), *cells(effect), Cell(one["verdicts"][other])]
            for one in shown
            for other, effect in one["changes"].items()
        ]
        heads = ["groups", "against", "change", *columns, "verdict"]
        words = ("groups", "against", "verdict")
        found += [Table(name, heading, heads, rows, [VERDICTS.format(**content)], words)] if rows else []
    return found + flip_tables(content["flips"])


def of(content: Mapping[str, Any], sizes: bool = False) -> list[Mapping[str, Any]]:
    """Return the comparisons of sizes, or all others."""
    return [one for one in content["comparisons"] if (one["measure"] == "size") == sizes]


def cells(effect: Mapping[str, Any]) -> list[Cell]:
    return [signed(effect["difference"]), interval(effect), probability(effect["p"])]


def flip_tables(flips: Mapping[str, Any] | None) -> list[Table]:
    """Return the shares of labels that flip, and examples."""
    if not flips:
        return []
    rows = [
        [
            *(Cell(name), percent(one["share"]), Cell(f"{100 * one['low']:.1f} to {100 * one['high']:.1f}")),
            EMPTY if one.get("p") is None else probability(one["p"]),
        ]
        for name, one in flips["shares"].items()
    ]
    note = (
        f"{flips['pairs']:,} of {flips['texts']:,} texts of {flips['source']} have a name, a pronoun or another word "
        "for a woman or a man. The label flips in this share of them when these words are exchanged. p: of the "
        "difference from the student, by McNemar's exact test."
    )
    found = [Table("flips", "Labels that flip, in per cent", ["model", "flips", "95 % interval", "p"], rows, [note])]
    if flips["examples"]:
        columns = ["text", "exchanged", "before", "after"]
        shown = [list(map(Cell, one)) for one in flips["examples"]]
        found.append(Table("examples", "Examples of the student's flips", columns, shown, (), columns))
    return found


def figure(content: Mapping[str, Any]) -> Figure:
    """Draw the differences with their intervals: a row for each comparison, a colour for each model."""
    shown = of(content)[::-1]
    names, models = list(map(title, shown)), list(content["models"])

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.axvspan(-content["least"], content["least"], color=GRID, alpha=0.5, linewidth=0)
        for place, model in enumerate(models):
            effects = [one["biases"][model] for one in shown]
            centres = [one["difference"] for one in effects]
            sides = [
                [one["difference"] - one["low"] for one in effects],
                [one["high"] - one["difference"] for one in effects],
            ]
            rows = [row + 0.22 * ((len(models) - 1) / 2 - place) for row in range(len(shown))]
            axes.errorbar(centres, rows, xerr=sides, fmt="o", markersize=4, color=SERIES[place], label=model)
        name_rows(axes, names)
        axes.set_xlabel(f"difference in the probability of {content['of_class']}")
        legend_below(axes, len(models))

    rows = [
        [title(one), model, *(one["biases"][model][key] for key in ("difference", "low", "high"))]
        for one in of(content)
        for model in models
    ]
    caption = "Differences between groups with their intervals. Grey: smaller than what counts as a bias."
    columns = ["groups", "model", "difference", "low", "high"]
    height = 1.2 + max(2 * height_of_rows(names), 1.0)
    return Figure("differences", "Differences between groups", caption, columns, rows, draw, height)


def sentence(content: Mapping[str, Any]) -> str:
    """Return the sentence for the model card."""
    shown, least = of(content), content["least"]
    found = biased(content)
    worst = max(found, key=lambda one: abs(one["biases"]["student"]["difference"]), default=None)
    text = (
        f"Audited for bias on {content['texts']:,} texts ({content['source']}) by the probability of "
        f"{content['of_class']}: {len(found)} of {plural(len(shown), 'comparison')} of groups "
        f"{'is' if len(found) == 1 else 'are'} decided (p < 0.05, and a difference of at least {least:g})"
    )
    if worst:
        effect = worst["biases"]["student"]
        text += f", the largest {signed(effect['difference']).text} for {title(worst)} ({interval(effect).text})"
    for name in content["models"]:
        if name != "student":
            text += f"; against the {'student ' * (name == 'alone')}{name}: {counted(shown, name)}"
            text += f", size of single differences {counted(sizes, name)}" if (sizes := of(content, True)) else ""
    if flips := content["flips"]:
        share = 100 * flips["shares"]["student"]["share"]
        text += (
            f"; {share:.1f} % of {flips['pairs']:,} {flips['source']} texts change their label when words for women "
            "and men are exchanged"
        )
    return text + ". This is no proof that there is no other bias."


def biased(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the comparisons in which the student has a bias."""
    return [one for one in of(content) if Effect(**one["biases"]["student"]).is_present(content["least"])]


def counted(comparisons: Sequence[Mapping[str, Any]], other: str) -> str:
    """Return how often each verdict was given."""
    counts = Counter(one["verdicts"][other] for one in comparisons)
    return listed([f"{verdict} {count}" for verdict, count in counts.items()])


def document(content: Mapping[str, Any], run: str, arguments: Sequence[str]) -> Document:
    """Return the page of an audit."""
    biases, *others = tables(content)
    blocks = [Block(biases.title, [], [figure(content)], [biases])]
    blocks += [Block(one.title, [], [], [one]) for one in others]
    shown, flips = of(content), content["flips"]
    facts = [(f"{len(biased(content))} of {len(shown)}", "differences of the student that count as a bias")]
    facts += [
        (counted(shown, name), f"against the {'student ' * (name == 'alone')}{name}")
        for name in content["models"]
        if name != "student"
    ]
    facts += [(f"{100 * flips['shares']['student']['share']:.1f} %", "of the labels flip")] if flips else []
    return Document(
        f"Audit of {run}",
        f"{content['texts']:,} texts, {content['source']}; kd {__version__} on {time.strftime('%Y-%m-%d at %H:%M')}",
        [],
        [Section("Audit", "", [content["sentence"], LIMITS], facts, blocks, [])],
        [],
        shlex.join(["kd", "audit", *arguments]),
    )
