"""The page of an explanation, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kd.report.document import Block, Document, Section
from kd.report.drawing import INK, MUTED, SERIES, Figure, height_of_rows, legend_below, name_rows
from kd.report.tables import Cell, Table, number, percent
from kd.report.words import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {"ig": "integrated gradients", "gradient": "gradient times input", "occlusion": "leaving the word out"}
MOST_WORDS = 25
"""Words of a text that are drawn and printed: those with the most influence on any model."""
INFLUENCE = (
    "Influence: what a word adds to the log-odds of the student's label, by {method}. Above 0 it speaks for the label, "
    "below 0 against it. The same label is explained for all models."
)


def document(record: Mapping[str, Any], title: str) -> Document:
    """Build the page: first the data set, then the single texts."""
    parts = [record[name] for name in ("data", "texts") if record[name]]
    sections = [of_data(record["data"])] if record["data"] else []
    sections += [of_texts(record["texts"])] if record["texts"] else []
    named = dict(pair for part in parts for pair in zip(part["names"], part["paths"], strict=True))
    subtitle = "; ".join(f"{name}: {plain('/'.join(Path(path).parts[-2:]))}" for name, path in named.items())
    commands = list(dict.fromkeys(part["command"] for part in parts))
    closing = [Block("Commands", [plain(command) for command in commands])] if len(commands) > 1 else []
    return Document(f"Explanation of {plain(title)}", subtitle, [], sections, closing, commands[-1])


def of_texts(part: Mapping[str, Any]) -> Section:
    """Build the part of the single texts."""
    blocks = []
    for place, row in enumerate(part["rows"], start=1):
        text = [f"“{plain(row['text'])}”", *said(part["names"], row)]
        tables = [of_neighbours(f"neighbours-{place}", row["neighbours"])] if row["neighbours"] else []
        title = f"Text {place}: {plain(row['label'])}"
        blocks.append(Block(title, text, [influences(f"text-{place}", part["names"], row)], tables))
    summary = [INFLUENCE.format(method=METHODS[part["method"]])]
    return Section("Single texts", "texts-", summary, [], blocks, [])


def said(names: list[str], row: Mapping[str, Any]) -> list[str]:
    """Say what each model answers to a text, and whether its influences add up."""
    lines = []
    for name, one in zip(names, row["models"], strict=True):
        line = f"The {name} answers {plain(one['answer'])} ({100 * one['probability']:.1f} %)."
        if one["change"]:
            change, total = one["change"]
            line += f" Completeness: the influences add up to {total:+.3f}, the log-odds change by {change:+.3f}."
        lines.append(line)
    return lines


def most_influential(row: Mapping[str, Any]) -> list[int]:
    """Return the numbers of the words that are shown, in the order of the text."""
    values = np.array([one["values"] for one in row["models"]])
    scale = np.abs(values).max(axis=1, keepdims=True, initial=1e-12)
    ranked = np.argsort(-np.abs(values / scale).max(axis=0), kind="stable")
    return sorted(ranked[:MOST_WORDS].tolist())


def influences(name: str, names: list[str], row: Mapping[str, Any]) -> Figure:
    """Draw the influence of each word on each model as bars."""
    shown = most_influential(row)
    values = [[one["values"][word] for word in shown] for one in row["models"]]
    words = [plain(row["words"][word]) for word in shown]

    def draw(axes: Axes) -> None:
        depth = 0.8 / len(values)
        for number_, (model, own) in enumerate(zip(names, values, strict=True)):
            places = np.arange(len(own))[::-1] + 0.4 - depth * (number_ + 0.5)  # the first word is at the top
            axes.barh(places, own, depth, color=SERIES[number_], label=model)
        axes.axvline(0, color=INK, linewidth=0.8)
        name_rows(axes, words[::-1])
        axes.set_xlabel(f"log-odds of {plain(row['label'])}")
        legend_below(axes, len(names))

    caption = "What each word adds to the log-odds."
    if len(shown) < len(row["words"]):
        caption += f" The {len(shown)} words of {len(row['words'])} with the most influence."
    rows = [(word, *(own[place] for own in values)) for place, word in enumerate(words)]
    height = 1.1 + height_of_rows(words) * (1 + 0.15 * len(names))
    return Figure(name, "Influence of each word", caption, ("word", *names), rows, draw, height)


def of_neighbours(name: str, rows: list[Mapping[str, Any]]) -> Table:
    """Tabulate the nearest training rows."""
    cells = [
        [
            Cell(plain(one["text"][:200])),
            Cell(plain(one["label"] or "none: transfer set")),
            Cell(plain(one["teacher"] or "")),
            number(one["closeness"], 3),
        ]
        for one in rows
    ]
    note = (
        "Closeness: cosine similarity of the vectors before the student's head; below 0 minus the distance of the "
        "logits, for a model without such vectors. A row without a gold label comes from the transfer set: the teacher "
        "alone has labelled it. The teacher's label is what it answers now."
    )
    words = ("training row", "gold", "teacher")
    return Table(name, "Nearest training rows", [*words, "closeness"], cells, [note], words)


def of_data(part: Mapping[str, Any]) -> Section:
    """Build the part of a data set."""
    summary = [f"{part['rows']} texts of {plain(part['source'])}.", INFLUENCE.format(method=METHODS[part["method"]])]
    if part["left_out"]:
        summary.append(f"{part['left_out']} texts with too few words, or without any influence, are left out.")
    blocks = [Block("Does removing what matters matter?", (), [curves(part)], [deletions(part)])]
    if part["pairs"]:
        blocks.insert(0, Block("Do the models read the same words?", gain(part), (), [correlations(part)]))
    for other in part["names"][1:]:
        rows = [row for row in part["words"] if row["other"] == other]
        text = (
            f"{len(rows)} of {part['words_tested']} words are shown. About {part['words_tested'] / 20:.0f} would be by "
            "chance."
        )
        tables = [words(rows, other)] if rows else []
        blocks.append(Block(f"Words that the student and the {other} read differently", [text], (), tables))
    return Section("Data set", "data-", summary, [], blocks, [])


def interval(estimate: Mapping[str, Any], digits: int = 2) -> list[Cell]:
    """Return the cells of a mean and of its interval."""
    low, high = estimate["interval"]
    return [
        Cell(f"{estimate['mean']:.{digits}f}", estimate["mean"]),
        Cell(f"[{low:.{digits}f}, {high:.{digits}f}]", (low, high)),
    ]


def correlations(part: Mapping[str, Any]) -> Table:
    """Tabulate the rank correlations."""
    rows = [
        [Cell(" – ".join(pair["models"])), *interval(pair["correlation"]), percent(pair["same_label"])]
        for pair in part["pairs"]
    ]
    note = (
        "Spearman's correlation of the words' influences within a text, mean over texts with its 95 % interval "
        "(bootstrap over texts): 1 where both rank the words in the same order, 0 where the orders are unrelated. "
        "Same label: share of texts, in per cent."
    )
    columns = ["models", "rank correlation", "95 %", "same label"]
    return Table("correlations", "Rank correlation", columns, rows, [note], ("models",))


def gain(part: Mapping[str, Any]) -> list[str]:
    """Say whether the student reads more like the teacher than the other run does."""
    if not part["gain"]:
        return []
    low, high = part["gain"]["interval"]
    verdict = "not decided" if low <= 0 <= high else "the student reads more like the teacher" if low > 0 else "less"
    if verdict == "less":
        verdict = "the student reads less like the teacher"
    student, teacher, other = part["names"]
    return [
        f"Rank correlation with the {teacher}, {student} minus {other}: {part['gain']['mean']:+.3f} "
        f"(95 % interval {low:+.3f} to {high:+.3f}): {verdict}."
    ]


def deletions(part: Mapping[str, Any]) -> Table:
    """Tabulate the areas between the deletion curves, and the completeness."""
    complete = part["method"] == "ig"
    rows = [
        [
            *(Cell(name), *interval(one["area"], 3), number(one["influence"])),
            *((number(one["change"]), number(one["gap"], 3), number(one["largest_gap"], 3)) if complete else ()),
        ]
        for name, one in zip(part["names"], part["models"], strict=True)
    ]
    notes = [
        "Area: how much lower the probability of the student's label is without the words of most influence than "
        "without as many random words, mean over the shares above 0. An interval above 0 says that the influences name "
        "words that matter. Influence: mean absolute value of a word, in log-odds."
    ]
    if complete:
        notes.append(
            "Completeness of integrated gradients: the influences of a text should add up to the change of the "
            "log-odds from a text of padding. Mean absolute change, mean gap and largest gap; more --steps narrow it."
        )
    columns = ["model", "area", "95 %", "influence", *(("change", "mean gap", "largest gap") if complete else ())]
    return Table("deletion", "Deletion" + " and completeness" * complete, columns, rows, notes)


def curves(part: Mapping[str, Any]) -> Figure:
    """Draw the deletion curves."""
    shares = [100 * share for share in part["shares"]]
    lines = [
        (f"{name}, {order}", colour, style, one[key])
        for name, one, colour in zip(part["names"], part["models"], SERIES, strict=False)
        for order, key, style in (("most influence first", "ranked", "o-"), ("random words", "random", "s:"))
    ]

    def draw(axes: Axes) -> None:
        for label, colour, style, values in lines:
            axes.plot(shares, [100 * value for value in values], style, color=colour, markersize=4, label=label)
        axes.set(xlabel="words left out, %", ylabel="probability of the student's label, %")
        axes.tick_params(colors=MUTED)
        legend_below(axes)

    rows = [(label, *values) for label, _, _, values in lines]
    caption = (
        "Mean probability of the student's label while words are left out: those of most influence, or random ones."
    )
    columns = ("line", *(f"{share:g} %" for share in shares))
    return Figure("deletion-curves", "Deletion curves", caption, columns, rows, draw, 3.3 + 0.2 * len(lines))


def words(rows: list[Mapping[str, Any]], other: str) -> Table:
    """Tabulate the words whose influence differs."""
    cells = [
        [
            Cell(plain(row["word"])),
            Cell(plain(row["towards"])),
            Cell(str(row["texts"]), row["texts"]),
            *(Cell(f"{value:+.2f}", value) for value in row["influences"]),
            *interval(row["difference"]),
        ]
        for row in rows
    ]
    note = (
        "Mean influence towards the named label, in units of the model's mean absolute influence of a word, over the "
        "texts with the word (at least 5). Words whose 95 % interval includes 0 are left out. The intervals are not "
        "corrected for the number of words."
    )
    columns = ["word", "towards", "texts", "student", other, "difference", "95 %"]
    return Table(f"words-{other}", f"Student and {other}", columns, cells, [note], ("word", "towards"))
