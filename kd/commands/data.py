"""``kd data inspect PATH``: what ``kd train`` finds in a file or folder, before anything is trained."""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import textwrap
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kd.config import build
from kd.config.check import check_options
from kd.config.compose import composed
from kd.data import inspection
from kd.data.batching import labels_of
from kd.data.inspection import BINS, SPLITS, FileFacts, Lengths
from kd.data.label_forms import short
from kd.data.splits import FATES, Splits
from kd.data.tokenizers import PretrainedTokenizer
from kd.data.unknown import unknown_pieces
from kd.errors import KDError
from kd.report import drawing
from kd.runtime.launch import quoted

WIDTH = 80
BAR = 28
MOST_FILES, MOST_CLASSES, MOST_COLUMNS, MOST_EXAMPLES = 6, 30, 12, 10
PLAIN = re.compile(r"(?!\w+\()[^\W\d][^\"'\[\]{},$\\\s]*( [^\"'\[\]{},$\\\s]+)*|[./~][\w./~-]*")
"""A value that kd train reads as a text without quotes (`kd.config.folder.overrides`), unless it is such as true."""
LEAKS = {
    "removed_from_validation": ", as test has the text (a leak)",
    "removed_from_train": ", as validation or test has the text (a leak)",
}
"""The fates of rows whose text is in another split as well, in words."""


def say(text: str = "", indent: str = "") -> None:
    """Print a paragraph, broken at the width of the tables."""
    print(textwrap.fill(text, WIDTH, subsequent_indent=indent + "  ", initial_indent=indent, break_on_hyphens=False))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="kd data",
        description="Show how kd train reads a file or folder: format, columns, labels, rows left out, lengths.",
        epilog="Any data.* option of kd train may follow, as in: kd data inspect reviews.csv data.limit=1000",
    )
    parser.add_argument("action", choices=["inspect"], help="print what is found; nothing is written but --png")
    parser.add_argument("words", nargs="*", metavar="PATH|data.KEY=VALUE", help="a file, a folder, or several files")
    parser.add_argument("--text", help="column with the texts (data.text)")
    parser.add_argument("--label", help="column with the labels (data.label)")
    for name in ("validation", "test", "encoding", "delimiter", "quoting"):
        parser.add_argument(f"--{name}", help=f"as data.{name}")
    parser.add_argument("--header", nargs="+", metavar="NAME", help="names of the columns, if no line has them")
    parser.add_argument("--label-names", nargs="+", metavar="NAME", help="name of each label id")
    parser.add_argument("--tokenizer", help="folder or hub name of a model, to show lengths and unknown pieces")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the classes and the lengths")
    return parser


def main(arguments: list[str]) -> int:
    """Read a data set as a run would, and print what was found."""
    options = parser().parse_intermixed_args(arguments)
    config, files = configuration(options), list[FileFacts]()
    if config.data.path is not None or config.data.train is not None:
        layout, files = inspection.found(OmegaConf.to_container(config.data, resolve=True))  # type: ignore[arg-type]
        say(f"read as {layout.kind}")
        show_files(files)
    splits = read(config)
    console = Console(width=WIDTH, highlight=False, markup=False)
    show_rows(splits, {f"{facts.name} is read as {facts.taken}" for facts in files})
    show_classes(console, splits)
    show_examples(splits)
    lengths = inspection.lengths(splits)
    show_lengths(console, lengths, config.data.max_length)
    if options.tokenizer:
        tokenizer = PretrainedTokenizer(options.tokenizer)([])
        lengths = inspection.pieces(splits, tokenizer)
        show_lengths(console, lengths, config.data.max_length)
        unknown = unknown_pieces(tokenizer, splits.train["text"])
        examples = f", for example {', '.join(map(repr, unknown.examples))}" if unknown.examples else ""
        say(f"unknown pieces: {100 * unknown.share:.1f} % of a sample of the training texts{examples}")
        splits.warnings += filter(None, [unknown.warning("this")])
    for warning in splits.warnings:
        print()
        say(f"warning: {warning}")
    if options.png:
        draw(splits, lengths, options.png)
        print(f"\ndrawn: {options.png}")
    command = ["kd train", *map(shlex.quote, words_of(options))]
    print("\nto train on it:\n  " + (" " if len(" ".join(command)) < WIDTH - 2 else " \\\n    ").join(command))
    return 0


def given_values(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the command line says about the data, by the key in the section ``data``."""
    paths = [word for word in options.words if not is_override(word)]
    keys = ("text", "label", "validation", "test", "encoding", "delimiter", "quoting", "header", "label_names")
    found = {"path": paths[0] if len(paths) == 1 else paths or None, **{key: getattr(options, key) for key in keys}}
    return {key: value for key, value in found.items() if value is not None}


def is_override(word: str) -> bool:
    """Return whether a word sets an option of the data, so that it is no path."""
    return "=" in word and word.lstrip("+~").split("=")[0].split(".")[0] == "data"


def words_of(options: argparse.Namespace) -> list[str]:
    """Return the overrides of `kd train` that read the same data."""
    words = [word for word in options.words if is_override(word)]
    chosen = [] if any(word.startswith("data=") for word in words) else ["data=files"]
    return [*chosen, *(f"data.{key}={as_override(value)}" for key, value in given_values(options).items()), *words]


def as_override(value: Any) -> str:
    """Return a text or a list of texts as the value of an override, in quotes where Hydra needs them.

    >>> as_override("a.csv"), as_override(["0", "my film"])
    ('a.csv', "['0','my film']")
    """
    if isinstance(value, list):
        return f"[{','.join(map(quoted, value))}]"
    plain = PLAIN.fullmatch(value) and value.casefold() not in ("true", "false", "null", "nan", "inf")
    return value if plain else quoted(value)


def configuration(options: argparse.Namespace) -> DictConfig:
    """Return the configuration of a run with this data."""
    given, words = given_values(options), [word for word in options.words if is_override(word)]
    if "path" not in given and not words:
        raise KDError("expected a file or folder to inspect, found none; kd data inspect reviews.csv, or data=imdb")
    if "path" in given and any(word.lstrip("+").startswith(("data.path=", "data.train=")) for word in words):
        raise KDError(f"expected the data once, found '{given['path']}' and {' '.join(words)}; leave one of them out")
    chosen = any(word.startswith("data=") for word in words)
    config = composed([*([] if chosen else ["data=files"]), *words])
    with open_dict(config):
        for key, value in given.items():
            config.data[key] = value
    check_options(config)
    return config


def read(config: DictConfig) -> Splits:
    """Read the rows as a run does, without its warnings in the log: they are printed at the end."""
    logger = logging.getLogger("kd.data")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return build.given_rows(config)
    finally:
        logger.setLevel(before)


def show_files(files: Sequence[FileFacts]) -> None:
    """Print how each file is read; the columns once for files that have the same."""
    shown: list[str] | None = None
    for facts in files[:MOST_FILES]:
        say(f"{facts.role}: {facts.name} ({facts.taken}{', ' if facts.encoding else ''}{facts.encoding})", "  ")
        if facts.columns != shown:
            names = ", ".join(map(repr, facts.columns[:MOST_COLUMNS]))
            say(f"columns: {names}{', ...' if len(facts.columns) > MOST_COLUMNS else ''}", "    ")
        shown = facts.columns
    if len(files) > MOST_FILES:
        say(f"and {len(files) - MOST_FILES:,} files more", "  ")


def show_rows(splits: Splits, printed: Collection[str] = ()) -> None:
    """Print how many rows were read, used and left out, and why; and the notes that are not printed already."""
    counts = splits.counts
    print()
    for line in splits.notes:
        if line not in printed:
            say(line)
    say(f"rows: {counts['read']:,} read, {counts['used']:,} used")
    for fate in FATES:
        if number := counts[fate]:
            places = counts["lines"].get(fate, [])[:3]
            more = ", ..." if number > len(places) else ""
            listed = f" ({', '.join(places)}{more})" if places else ""
            say(f"left out, {fate.replace('_', ' ')}{LEAKS.get(fate, '')}: {number:,}{listed}", "  ")
    if not any(counts[fate] for fate in ("duplicates", "conflicting_duplicates")):
        say("duplicates: none", "  ")
    if not any(counts[fate] for fate in LEAKS):
        say("leaks between splits: none", "  ")


def show_classes(console: Console, splits: Splits) -> None:
    """Print the rows of each class in each split, with a bar of their sum."""
    balance = {name: splits.counts["splits"][name] for name in SPLITS}
    rows = {label: [balance[name]["labels"].get(label, 0) for name in SPLITS] for label in splits.label_names}
    if any(split["unlabelled"] for split in balance.values()):
        rows["(no label)"] = [balance[name]["unlabelled"] for name in SPLITS]
    largest = max(1, *map(sum, rows.values()))
    table = new_table("class", SPLITS)
    for label, numbers in list(rows.items())[:MOST_CLASSES]:
        bar = Bar(size=largest, begin=0, end=sum(numbers), width=BAR)
        table.add_row(Text(label), *(f"{number:,}" for number in numbers), bar)
    table.add_row("all", *(f"{balance[name]['rows']:,}" for name in SPLITS), "", style="bold")
    print()
    console.print(table)
    if len(rows) > MOST_CLASSES:
        say(f"and {len(rows) - MOST_CLASSES:,} classes more")


def show_examples(splits: Splits) -> None:
    """Print the beginning of the first text of each class, from train if it has one there."""
    print()
    for number, label in enumerate(splits.label_names[:MOST_EXAMPLES]):
        for split in (splits.train, splits.validation, splits.test):
            rows = np.flatnonzero(labels_of(split) == number)
            if len(rows):
                text = " ".join(split[int(rows[0])]["text"][:WIDTH].split())
                start = f"  {short(label)}: "
                print(start + (text if len(text) + len(start) <= WIDTH else f"{text[: WIDTH - 3 - len(start)]}..."))
                break


def show_lengths(console: Console, lengths: Lengths, max_length: int) -> None:
    """Print the figures and a histogram of the lengths."""
    figures = ", ".join(f"{name} {value}" for name, value in lengths.figures().items())
    print()
    say(f"{lengths.unit} in a text: {figures}")
    if lengths.unit == "pieces":
        longer = (lengths.values > max_length).mean()
        say(f"longer than data.max_length={max_length}, and truncated: {100 * longer:.1f} % of the texts", "  ")
    bins = lengths.bins()
    while not bins[-1][2]:
        bins.pop()
    table = new_table(lengths.unit, ["texts"])
    for number, (start, end, count) in enumerate(bins):
        name = f"{start:,} or more" if number == BINS - 1 else f"{start:,} to {end:,}" if end > start else f"{start:,}"
        table.add_row(name, f"{count:,}", Bar(size=max(row[2] for row in bins), begin=0, end=count, width=BAR))
    console.print(table)


def new_table(subject: str, figures: Sequence[str]) -> Table:
    """Return an empty table with a column of names, columns of figures, and one of bars."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(subject, overflow="ellipsis", max_width=24, no_wrap=True)
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", width=BAR)
    return table


def draw(splits: Splits, lengths: Lengths, path: Path) -> None:
    """Draw the classes and the lengths side by side.

    Raises:
        KDError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = splits.label_names[:MOST_CLASSES]
    height = max(drawing.HEIGHT, 0.4 + drawing.height_of_rows(labels))
    with matplotlib.rc_context(drawing.STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a script that the font lacks
        canvas = Figure(figsize=(2 * drawing.WIDTH, height), layout="constrained")
        FigureCanvasAgg(canvas)
        classes, histogram = canvas.subplots(1, 2)
        _draw_classes(classes, splits, labels)
        starts, ends, counts = zip(*lengths.bins(), strict=True)
        histogram.bar(starts, counts, width=ends[0] + 1, align="edge", color=drawing.SERIES[0], edgecolor="white")
        histogram.set_xlabel(f"{lengths.unit} in a text (the last bar: or more)")
        histogram.set_ylabel("texts")
        try:
            canvas.savefig(path, format="png", dpi=160, metadata={"Software": None})
        except OSError as error:
            raise KDError(f"cannot write {path}: {error.strerror or error}; choose another place for --png") from error


def _draw_classes(axes: Any, splits: Splits, labels: Sequence[str]) -> None:
    """Draw a bar for each class, in parts for the splits."""
    left = [0] * len(labels)
    for colour, name in zip(drawing.SERIES, SPLITS, strict=False):
        balance = splits.counts["splits"][name]["labels"]
        numbers = [balance[label] for label in labels]
        axes.barh(range(len(labels)), numbers, left=left, color=colour, label=name, height=0.7)
        left = [before + number for before, number in zip(left, numbers, strict=True)]
    drawing.name_rows(axes, labels)
    axes.invert_yaxis()
    axes.set_xlabel("rows")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, ncols=len(SPLITS))
