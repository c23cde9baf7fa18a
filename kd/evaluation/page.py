"""The tables and figures of an evaluation, for the page and for the terminal. Needs no torch."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as Printed
from rich.text import Text

from kd import __version__
from kd.evaluation.slices import FEWEST
from kd.report.calibration import BINS
from kd.report.contents import bounds
from kd.report.document import Block, Document, Section
from kd.report.drawing import INK, MUTED, SERIES, Figure, height_of_rows, name_rows
from kd.report.tables import EMPTY, Cell, Table, number, percent, probability
from kd.report.words import METRICS, plain, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {**METRICS, "ece": "ECE", "nll": "NLL", "brier": "Brier"}
NAMES |= {f"{name}_scaled": f"{NAMES[name]} after" for name in ("ece", "nll", "brier")}
OF_TEACHER = {"agreement": "agreement", "kl": "KL", "kappa": "kappa", "loyalty": "loyalty", "copied": "copied errors"}
OF_TEACHER |= {"new": "new errors"}
NO_SHARES = ("nll", "brier", "nll_scaled", "brier_scaled", "kl", "kappa", "loyalty")
"""Figures that are not shown in per cent."""
MOVED = 5e-4
"""Mean change of a probability below which word order is not read: what rounding to 0.0 points hides."""
WORST = 12
"""Slices of one data set in the table and the drawing."""
WORDS = ("data", "figure", "gold label", "slice", "verdict", "change", "file", "test", "capability", "type", "example")
"""Columns that hold words."""
Found = Mapping[str, Any]


def both(found: Found | None, name: str = "", sign: str = "") -> list[Cell]:
    """Show an estimate and its interval in two cells; empty where it is not defined."""
    if found is None or found["value"] is None:
        return [EMPTY, EMPTY]
    pair = found["low"], found["high"]
    if name in NO_SHARES:
        return [number(found["value"], 3), Cell(f"[{pair[0]:.3f}, {pair[1]:.3f}]", pair)]
    return [percent(found["value"], sign=sign), bounds(pair, sign)]


def figures(found: Found) -> Table:
    """Tabulate the metrics of each data set, and the drop from the first."""
    rows = []
    for one in found["data"]:
        rows.append([Cell(one["name"]), number(one["rows"], 0), *both(one["metrics"]["accuracy"])])
        rows[-1] += [*both(one["difference"], sign="+"), *(both(one["metrics"][name])[0] for name in list(METRICS)[1:])]
    first = found["data"][0]["name"]
    note = (
        "Accuracy with Wilson's interval, macro F1, balanced accuracy and AUROC in per cent. Points: accuracy "
        f"minus that on {first}, with Newcombe's 95 % interval for different rows."
    )
    columns = ("data", "rows", "acc", "95 % interval", "points", "interval", "F1", "bal", "AUROC")
    return Table("figures", "Figures", columns, rows, [note], WORDS)


def calibration(found: Found) -> Table:
    """Tabulate ECE, NLL and Brier score before and after temperature scaling."""
    names = [name for name in NAMES if name not in METRICS]
    rows = [[Cell(one["name"]), *(both(one["metrics"].get(name), name)[0] for name in names)] for one in found["data"]]
    after = "not measured, without validation rows"
    if found["temperature"]:
        after = f"the logits divided by {found['temperature']:.3f}, fitted on the run's validation rows; not for them"
    note = (
        f"ECE: expected calibration error in per cent, {BINS} bins; NLL in nats; Brier from 0 to 2. After: "
        f"{after}. With few rows the ECE is too large, because it counts the noise of each bin."
    )
    return Table("calibration", "Calibration", ("data", *(NAMES[name] for name in names)), rows, [note], WORDS)


def teacher(found: Found) -> Table:
    """Tabulate the comparison with the teacher."""
    rows = []
    for one in found["data"]:
        if own := one["teacher"]:
            rows.append([Cell(one["name"]), percent(own["accuracy"]), *both(own["agreement"])])
            rows[-1] += [both(own[name], name)[0] for name in ("kl", "kappa", "loyalty")]
            for name in ("copied", "new"):
                part = percent(own[name]["value"], 0).text or "–"
                rows[-1].append(Cell(f"{own[f'{name}_rows']} ({part} %)", own[name]["value"]))
    note = (
        f"Against {found['teacher']}. KL: mean KL(teacher ‖ classifier) in nats; kappa: Cohen's; loyal: probability "
        "loyalty, the mean of 1 − √(Jensen-Shannon divergence, base 2) (Xu et al. 2021). Copied: rows where the "
        "teacher is wrong and the classifier gives the same label, and their share of the teacher's errors. New: rows "
        "where the teacher is right and the classifier is wrong, and their share of the teacher's right answers."
    )
    columns = ("data", "teacher", "agree", "95 % interval", "KL", "kappa", "loyal", "copied", "new")
    return Table("teacher", "Against the teacher", columns, rows, [note], WORDS)


def bag(found: Found) -> Table:
    """Tabulate the comparison with the bag of n-grams."""
    rows = [
        [Cell(one["name"]), percent(own["accuracy"]), *both(own["difference"], sign="+"), probability(own["p_value"])]
        for one in found["data"]
        if (own := one["bag"])
    ]
    note = f"Against the run '{found['bag']}' on the same rows, by McNemar's exact test and its interval."
    columns = ("data", "bag", "points", "95 % interval", "p")
    return Table("bag", "Against the bag of n-grams", columns, rows, [note], WORDS)


def slices(found: Found) -> Table:
    """Tabulate the worst slices of each data set."""
    rows = []
    for one in found["data"]:
        for part in one["slices"][:WORST]:
            rows.append([Cell(one["name"]), Cell(part["name"]), number(part["rows"], 0), percent(part["accuracy"])])
            rows[-1] += [*both(part["difference"], sign="+"), Cell(verdict(part["difference"]))]
    looked = ", ".join(f"{len(one['slices'])} of {one['name']}" for one in found["data"])
    note = (
        f"The worst of the slices with at least {FEWEST} rows inside and outside ({looked}). Points: accuracy minus "
        "that of all other rows. The intervals are simultaneous (Bonferroni over the slices of a data set): all hold "
        "together with a probability of 95 %. Worse: the interval lies below 0."
    )
    columns = ("data", "slice", "rows", "acc", "points", "interval", "verdict")
    return Table("slices", "Slices", columns, rows, [note], WORDS)


def verdict(found: Found) -> str:
    """Say whether an interval excludes 0."""
    return "worse" if found["high"] < 0 else "better" if found["low"] > 0 else "not decided"


def robustness(found: Found) -> Table:
    """Tabulate the changed texts."""
    rows = []
    for one in found["robustness"]:
        rows.append([Cell(one["name"]), percent(one["changed"], 0), percent(one["accuracy"])])
        rows[-1] += [*both(one["difference"], sign="+"), probability(one["p_value"]), *both(one["flipped"])]
        rows[-1].append(percent(one["moved"]["value"]))
    note = (
        f"On {found['data'][0]['name']}. Texts: share that the change alters. Points: of accuracy, by McNemar's "
        "exact test with Holm's correction over the changes; the interval is at its level. Flipped: rows that get "
        "another label. Moved: mean size of the change in the probability of the label that the unchanged text gets, "
        "in points. A model that it is 0 for with shuffled words does not read their order."
    )
    columns = ("change", "texts", "acc", "points", "interval", "p", "flipped", "95 % interval", "moved")
    return Table("robustness", "Robustness", columns, rows, [note], WORDS)


def suites(found: Found) -> list[Table]:
    """Tabulate the contrast pairs and the tests of the suite."""
    own, rows = found["pairs"], []
    if own:
        rows = [[Cell(own["name"]), number(own["sets"], 0), *both(own["consistency"]), *both(own["accuracy"])[:1]]]
    note = "Consistent: share of the pairs in which every row is right, in per cent. Acc: accuracy over all their rows."
    pairs = Table("pairs", "Contrast pairs", ("file", "pairs", "consistent", "interval", "acc"), rows, [note], WORDS)
    tests = []
    for one in found["suite"]:
        tests.append([Cell(one["name"]), Cell(one["capability"]), Cell(one["type"]), number(one["cases"], 0)])
        tests[-1] += [*both(one["rate"]), Cell(one["example"] or "")]
    note = "Fail: share of the cases with a text that fails, in per cent. Example: the first case that fails."
    columns = ("test", "capability", "type", "cases", "fail", "95 % interval", "example")
    return [pairs, Table("suite", "Suite", columns, tests, [note], WORDS)]


def details(found: Found) -> list[Table]:
    """Tabulate the rows by gold and given label, and every figure with its interval."""
    counts, rows = [], []
    for one in found["data"]:
        for label, given in zip(found["labels"], one["confusion"], strict=True):
            counts.append([Cell(one["name"]), Cell(label), *(number(count, 0) for count in given)])
        known = [(NAMES[name], name, value) for name, value in one["metrics"].items()]
        known += [
            (f"teacher: {words}", name, one["teacher"][name]) for name, words in OF_TEACHER.items() if one["teacher"]
        ]
        rows += [[Cell(one["name"]), Cell(words), *both(value, name)] for words, name, value in known]
    note = (
        "95 % intervals. Accuracy, agreement and the shares of errors: Wilson's. Kappa: bootstrap of the table of both "
        "models' labels. All others: percentile bootstrap over rows of the figure as a mean over rows."
    )
    columns = ("data", "gold label", *(f"given {label}" for label in found["labels"]))
    every = ("data", "figure", "value", "95 % interval")
    return [
        Table("confusion", "Confusion matrix", columns, counts, ["Numbers of rows."], WORDS),
        Table("intervals", "All figures with their intervals", every, rows, [note], WORDS),
    ]


def dots(name: str, title: str, caption: str, rows: Sequence[tuple[str, Found]]) -> Figure:
    """Draw differences with their intervals, the first at the top."""

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, (_, one) in enumerate(reversed(rows)):
            colour = {"worse": SERIES[1], "better": SERIES[2]}.get(verdict(one), MUTED)
            axes.plot([100 * one["low"], 100 * one["high"]], [place, place], color=colour, solid_capstyle="butt")
            axes.plot(100 * one["value"], place, "o", color=colour, markersize=5)
        name_rows(axes, [words for words, _ in reversed(rows)])
        axes.set_xlabel("percentage points of accuracy")

    data = [(words, one["value"], one["low"], one["high"]) for words, one in rows]
    height = 1.0 + height_of_rows(words for words, _ in rows)
    return Figure(name, title, caption, ("name", "value", "low", "high"), data, draw, height)


def drawings(found: Found) -> dict[str, Figure]:
    """Return the figures by the table that they belong to."""
    first, *others = found["data"]
    name = first["name"]
    parts = {
        "figures": ("Other data", f"Accuracy on other data minus that on {name}; 95 % intervals.", others),
        "slices": (
            f"Worst slices of {name}",
            "Accuracy of each slice minus that of all other rows; simultaneous intervals.",
            first["slices"][:WORST],
        ),
        "robustness": (
            "Changed texts",
            f"Accuracy on changed texts of {name} minus that on the unchanged; intervals at Holm's levels.",
            found["robustness"],
        ),
    }
    return {
        key: dots(key, title, caption, [(one["name"], one["difference"]) for one in rows])
        for key, (title, caption, rows) in parts.items()
        if rows
    }


def tables(found: Found) -> list[Table]:
    """Return all tables for which there are figures, in the order of the page."""
    made = [figures(found), calibration(found), teacher(found), bag(found), slices(found), robustness(found)]
    return [table for table in (*made, *suites(found), *details(found)) if table.rows]


def document(found: Found, title: str, arguments: Sequence[str]) -> Document:
    """Return the page of an evaluation.

    Args:
        found: the content of ``evaluation.json``.
        title: what was measured.
        arguments: of ``kd evaluate``.
    """
    drawn, command = drawings(found), shlex.join(["kd", "evaluate", *arguments])
    blocks = [Block(one.title, (), [drawn[one.name]] if one.name in drawn else (), [one]) for one in tables(found)]
    facts = [(f"{percent(one['metrics']['accuracy']['value']).text} %", one["name"]) for one in found["data"][:4]]
    section = Section(title, "", sentences(found), facts, blocks, [command])
    made = f"{plural(len(found['data']), 'data set')}, measured by kd {__version__}"
    subtitle = f"{made} on {time.strftime('%Y-%m-%d at %H:%M')}"
    return Document(f"Evaluation of {title}", subtitle, found["notes"], [section], [], command)


def sentences(found: Found) -> list[str]:
    """Say in words where the classifier is worse."""
    made, first = [], found["data"][0]["name"]
    for one in found["data"]:
        if one["difference"] and verdict(one["difference"]) == "worse":
            lower, around = (cell.text for cell in both(one["difference"], sign="+"))
            made.append(f"Accuracy on {one['name']} against {first}: {lower} points {around}.")
        worse = [part for part in one["slices"] if verdict(part["difference"]) == "worse"]
        named = (
            "{} ({}, {} points {})".format(
                part["name"], plural(part["rows"], "row"), *(cell.text for cell in both(part["difference"], sign="+"))
            )
            for part in worse[:3]
        )
        if one["slices"]:
            looked = f"{plural(len(one['slices']), 'slice')} of {one['name']}"
            made.append(f"Worse in {len(worse) or 'none'} of {looked}{': ' * bool(worse)}{'; '.join(named)}.")
    for one in found["robustness"]:
        if one["name"] == "word order shuffled":
            flipped, moved = (percent(one[key]["value"]).text for key in ("flipped", "moved"))
            change = both(one["difference"], sign="+")
            reads = "reads" if one["moved"]["value"] >= MOVED else "does not read"
            made.append(
                f"It {reads} word order: with shuffled words the probability of its label moves by {moved} points on "
                f"average, {flipped} % of the texts get another label, and the accuracy changes by {change[0].text} "
                f"points {change[1].text} ({verdict(one['difference'])})."
            )
    return made


def show(found: Found, title: str, console: Console) -> None:
    """Print the tables, with the three worst slices of each data set, and the sentences, 80 columns wide."""
    say = lambda text: console.print(Text(plain(text)))  # noqa: E731
    short = {**found, "data": [{**one, "slices": one["slices"][:3]} for one in found["data"]]}
    for table in tables(short):
        if table.name in ("confusion", "intervals"):  # the page has them
            continue
        say(f"{title}: {table.title}" if table.name == "figures" else table.title)
        made = Printed(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        hidden = ("example", "capability", "texts")
        places = [place for place, column in enumerate(table.columns) if column not in hidden]
        for place in places:
            is_words = table.columns[place] in WORDS
            made.add_column(table.columns[place], justify="left" if is_words else "right", no_wrap=not is_words)
        for row in table.rows:
            made.add_row(*(Text(plain(row[place].text)) for place in places))
        console.print(made)
        console.print()
    for line in sentences(found):
        say(line)
