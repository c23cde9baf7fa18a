"""``kd report DIR...``: show finished runs side by side, in the terminal and as a page. Needs no torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from kd.report.document import document
from kd.report.folds import pool_folds
from kd.report.page import write
from kd.report.runs import find_runs
from kd.report.study import studies
from kd.report.terminal import show
from kd.storage.paths import refuse_link


def main(arguments: list[str]) -> int:
    """Print a table for each test set, and write the page."""
    parser = argparse.ArgumentParser(prog="kd report", description="Show finished runs side by side.")
    parser.add_argument("folders", nargs="+", type=Path, help="run directories, or folders that hold them")
    parser.add_argument("--out", type=Path, help="folder for the page (default: report/ in the first folder)")
    options = parser.parse_args(arguments)
    place = options.out or options.folders[0] / "report"
    if not options.out:  # a stranger may have made the folder of the runs
        refuse_link(options.folders[0], place)
    found = pool_folds(find_runs(options.folders))
    console, each = Console(soft_wrap=False), studies(found.runs)
    page = write(document(options.folders, found, each), place)  # before the tables: their reader may end early
    for number, study in enumerate(each):
        if number:
            console.print()
        show(study, console)
    sys.stdout.flush()
    print(f"kd report: the page is {page}", file=sys.stderr)
    return 0
