"""``kd auto``: train what ``kd advise`` chooses within a time, and read the test rows with the winner alone."""

from __future__ import annotations

import argparse
import logging
import sys
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kd.advice import study
from kd.advice.plan import NAME, Plan, add_options, fitted, limits_of, make_plan, overrides_of, read, show
from kd.config.words import outputs_of
from kd.errors import KDError
from kd.runtime.command import run_command
from kd.runtime.launch import quoted
from kd.storage import records
from kd.storage.locks import lock_or_refuse
from kd.storage.paths import refuse_link


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="kd auto",
        description="Choose students and settings by rules, train them within a time by successive halving, take the "
        "best on validation, and read the test rows with it alone. The same command resumes; a larger budget goes on.",
    )
    add_options(parser)
    parser.add_argument("--budget", required=True, help="time of all trainings, such as 30min")
    parser.add_argument("--study", type=Path, help="folder of the study (default: OUTPUTS/auto)")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str]) -> int:
    """Plan, search, read the test rows with the winner, and report."""
    options = parsed(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="kd auto: %(message)s")
    limits = limits_of(options.at_most, options.budget, not options.no_labels)
    if not find_spec("optuna"):
        raise KDError("kd auto needs Optuna; pip install 'kd[optuna]'")
    place = (options.study or outputs_of(options.words, {}) / "auto").absolute()
    place.mkdir(parents=True, exist_ok=True)
    with lock_or_refuse(place / ".auto", f"runs the study in '{place}'; wait for it, or give another folder: --study"):
        refuse_link(place, place / NAME)
        known = read(place) or make_plan(options.words, options.at_most, limits)
        study.refuse_another(known, (options.words, options.at_most, limits.labels), place)
        plan = fitted(known, limits.seconds or 0.0)
        if not (place / NAME).is_file():  # not before the budget is known to be large enough
            records.write(place / NAME, known.model_dump())
        show(plan)
        names = study.write_candidates(place, plan)
        try:
            run_command(study.search_words(place, plan, names, limits.seconds or 0.0))
        except KDError:  # some candidates have failed; the table below has their reasons
            study.winner_of(study.outcomes(place, plan))
        finish(place, plan)
    return 0


def finish(place: Path, plan: Plan) -> None:
    """Read the test rows with the winner, and print and write what was tried."""
    tried = study.outcomes(place, plan)
    best, run = study.winner_of(tried)
    run_command(["train", *plan.words, *overrides_of(best.one), f"hydra.run.dir={quoted(str(run.path))}"])
    page = study.write_report(place, plan, tried)
    made, console = study.table(tried), Console()
    table = Table(title=made.title, box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
    for name in made.columns:
        table.add_column(name, justify="left" if name in made.words else "right", overflow="fold")
    for row in made.rows:
        table.add_row(*(cell.text for cell in row))
    console.print(table, highlight=False, markup=False)
    found = run.metrics()
    metric = str(run.config().get("metric", "accuracy"))
    shown = " and ".join(f"{100 * found[split][metric]:.1f} % on {split}" for split in ("validation", "test"))
    print(f"winner: {best.one.name}, {metric} {shown} ({found['test']['rows']} rows, read once)")
    print(f"run: {run.path}\nreport: {page}\nagain: {study.again(plan, best.one)}")
